"""Finds in Python source what the project must not hold: waits without a limit, and whatever runs code that it reads.

What is right all the same says so on its line, with the reason: `# no limit: REASON` for a wait, and for an except of
everything `# noqa: BLE001 - REASON`. Types are not known here: a wait is known by the name of the method, and a queue
from a dict by its arguments.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from typing import NamedTuple

_MODULES = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve"}
_RUN_CODE = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
_RUN_CODE |= {f"yaml.{kind}load{all}" for kind in ("", "full_", "unsafe_") for all in ("", "_all")}
_MUST_SAY = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
_SUBPROCESS = {f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output")}
_TIMEOUT_AT = {"wait": 0, "join": 0, "result": 0, "poll": 0, "select": 0, "get": 1, "acquire": 1, "communicate": 1}
"""waiting methods, and which of their arguments is the limit"""
_RECEIVES = re.compile(r"accept|recv(from|msg|_into|_multipart|_string|_json|_bytes|_serialized)?")
_PICKLES = {"recv_pyobj", "send_pyobj"}
_NO_LIMIT, _NOQA = re.compile(r"# no limit: \S"), re.compile(r"# noqa: BLE001 - \S")
_Scope = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Finding(NamedTuple):
    line: int
    what: str


def findings(source: str) -> list[Finding]:
    """In the order of their lines."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    for line in finder.allowed - finder.used:
        finder.found.append(Finding(line, "'# no limit' where nobody waits"))
    return sorted(finder.found)


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        self._comments = {each.start[0]: each.string for each in tokens if each.type == tokenize.COMMENT}
        self.allowed = {line for line, comment in self._comments.items() if _NO_LIMIT.search(comment)}
        self.used: set[int] = set()
        self.found: list[Finding] = []
        self._imported: dict[str, str] = {}
        """what a name of this file is called where it comes from"""
        self._scopes: list[_Scope] = []

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, _Scope):
            self._scopes.append(node)
            super().visit(node)
            self._scopes.pop()
        else:
            super().visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for each in node.names:
            first = each.name.partition(".")[0]
            self._import(node, each.name, each.asname or first, each.name if each.asname else first)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for each in node.names:
            self._import(node, node.module or "", each.asname or each.name, f"{node.module}.{each.name}")

    def _import(self, node: ast.stmt, module: str, name: str, means: str) -> None:
        if module.partition(".")[0] in _MODULES:
            self._find(node, f"{module} runs code that it reads")
        self._imported[name] = means

    def visit_While(self, node: ast.While) -> None:
        if isinstance(node.test, ast.Constant) and node.test.value and not _leaves(node):
            self._find_wait(node.test, "a loop without an end")
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        names = {"" if each is None else ast.unparse(each) for each in caught}
        raises = node.type is not None and isinstance(node.body[-1], ast.Raise)
        is_allowed = _NOQA.search(self._comments.get(node.lineno, ""))
        if names & {"", "Exception", "BaseException"} and not raises and not is_allowed:
            self._find(node, "an except of everything, without '# noqa: BLE001 - REASON'")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        function = self._dotted(node.func)
        said = {each.arg: each.value for each in node.keywords}
        if function in _RUN_CODE:
            self._find(node, f"{function}() runs code that it is given")
        if function in _MUST_SAY:
            option, value = _MUST_SAY[function]
            if not _is(said.get(option), value):
                self._find(node, f"{function}() without {option}={value}")
        if _is(said.get("shell"), True):
            self._find(node, "shell=True")
        if function in _SUBPROCESS and _is_no_limit(said.get("timeout")):
            self._find_wait(node, f"{function}() without timeout")
        elif function == "select.select":
            if len(node.args) < 4 or _is_no_limit(node.args[3]):
                self._find_wait(node, "select() without timeout")
        elif isinstance(node.func, ast.Attribute):
            self._look_at_method(node, node.func)
        self.generic_visit(node)

    def _look_at_method(self, node: ast.Call, method: ast.Attribute) -> None:
        name, whose = method.attr, ast.unparse(method.value)
        if name in _PICKLES:
            self._find(node, f"{name}() pickles")
        elif name in _TIMEOUT_AT and _may_wait(node, name, whose) and _is_no_limit(_limit(node, _TIMEOUT_AT[name])):
            self._find_wait(node, f"{whose}.{name}() without a limit")
        elif _RECEIVES.fullmatch(name) and not self._has_limit(node, whose):
            self._find_wait(node, f"{whose}.{name}() without NOBLOCK, and nobody has polled with a limit")

    def _has_limit(self, node: ast.Call, whose: str) -> bool:
        """It does not wait, its function polls the same thing before, or its class gives that a timeout."""
        if re.search("NOBLOCK|DONTWAIT", ast.unparse(node)):
            return True
        *_, function = self._scopes
        home = next((each for each in self._scopes if isinstance(each, ast.ClassDef)), function)
        calls = [
            each
            for scope, name in ((function, "poll"), (home, "settimeout"))
            for each in ast.walk(scope)
            if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute)
            and each.func.attr == name and ast.unparse(each.func.value) == whose
        ]  # fmt: skip
        return any(not _is_no_limit(_limit(each, 0)) for each in calls)

    def _dotted(self, function: ast.expr) -> str:
        """`np.load` as numpy.load."""
        first, dot, rest = ast.unparse(function).partition(".")
        return self._imported.get(first, first) + dot + rest

    def _find(self, node: ast.AST, what: str) -> None:
        self.found.append(Finding(getattr(node, "lineno", 0), what))

    def _find_wait(self, node: ast.expr, what: str) -> None:
        allowed = self.allowed & {*range(node.lineno, (node.end_lineno or node.lineno) + 1)}
        self.used |= allowed
        if not allowed:
            self._find(node, what)


def _leaves(node: ast.AST, in_another_loop: bool = False) -> bool:
    """Whether something in it ends the loop that it is."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Return | ast.Raise | ast.Yield | ast.YieldFrom):
            return True
        if isinstance(child, ast.Break) and not in_another_loop:
            return True
        if not isinstance(child, _Scope) and _leaves(child, in_another_loop or isinstance(child, ast.For | ast.While)):
            return True
    return False


def _limit(node: ast.Call, place: int) -> ast.expr | None:
    named = [each.value for each in node.keywords if each.arg in ("timeout", "timeout_s")]
    return next(iter([*named, *node.args[place : place + 1]]), None)


def _may_wait(node: ast.Call, name: str, whose: str) -> bool:
    """False: it is a dict's get(), a process's poll(), or was told not to wait."""
    if name == "poll":
        return bool(node.args) or re.search("sock|poll", whose, re.IGNORECASE) is not None
    if name in ("get", "acquire"):
        told = [*node.args[:1], *(each.value for each in node.keywords if each.arg in ("block", "blocking"))]
        return not told or _is(told[0], True)
    return True


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _is_no_limit(node: ast.expr | None) -> bool:
    """None, or the -1 that ZeroMQ and epoll take for it."""
    return node is None or _is(node, None) or ast.unparse(node) == "-1"
