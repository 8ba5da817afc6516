"""ML-Agents' protocol buffer messages, beside any protobuf that is installed.

The `*_pb2` modules that mlagents-envs ships were generated for protobuf 3 and do not import beside a later one with its
C implementation. Each carries the descriptor of its messages as bytes, though. Importing this file builds the modules
from those descriptors instead, before anything of mlagents_envs asks for them; no file of it is copied or changed.

The same descriptors, altered, make the lean messages: what is a packed list of numbers on the wire is `bytes` there, so
that an observation goes from the message into an array by one copy, without a Python object for each number. So are
the actions of a behaviour.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import builder

_PACKAGE = "mlagents_envs.communicator_objects"
_AS_BYTES = {
    "FloatData.data",
    "AgentInfoProto.action_mask",
    "AgentActionProto.continuous_actions",
    "AgentActionsEntry.value",  # a behaviour's ListAgentActionProto, in UnityRLInputProto.agent_actions
}
"""message.field of what the lean messages take as bytes"""

OK, QUIT = 200, 400
"""what a message's header says, of either side"""
EXCHANGE = "/communicator_objects.UnityToExternalProto/Exchange"
"""the one remote procedure that the player calls; request and response are a UnityMessageProto"""


def _descriptors() -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """File name -> descriptor of all that the installed mlagents_envs has. Raises ImportError without it."""
    package = importlib.util.find_spec("mlagents_envs")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("no module named 'mlagents_envs'", name="mlagents_envs")
    files = {}
    for path in sorted(Path(package.submodule_search_locations[0], "communicator_objects").glob("*_pb2.py")):
        file = descriptor_pb2.FileDescriptorProto.FromString(_embedded(path))
        files[file.name] = file
    return files


def _embedded(path: Path) -> bytes:
    """The serialised descriptor in a generated module: the argument of its FileDescriptor or AddSerializedFile."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            given = {each.arg: each.value for each in node.value.keywords}
            literal = given.get("serialized_pb", node.value.args[0] if node.value.args else None)
            if isinstance(literal, ast.Call):  # _b('...'), which turns a string of bytes into bytes
                literal = literal.args[0]
            if isinstance(literal, ast.Constant) and isinstance(literal.value, bytes | str):
                value = literal.value
                return value if isinstance(value, bytes) else value.encode("latin1")
    raise ImportError(f"{path} holds no descriptor; mlagents-envs 0.28.0 and 1.1.0 are known to work")


def _add(files: dict[str, descriptor_pb2.FileDescriptorProto], pool: descriptor_pool.DescriptorPool) -> None:
    """Add all files to the pool, each after those that it depends on."""
    known: set[str] = set()

    def add(name: str) -> None:
        if name in files and name not in known:
            known.add(name)
            for dependency in files[name].dependency:
                add(dependency)
            pool.AddSerializedFile(files[name].SerializeToString())

    for name in files:
        add(name)


def _install(files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    """Put modules built from the descriptors where `import mlagents_envs.communicator_objects.X_pb2` finds them."""
    pool = descriptor_pool.Default()
    _add(files, pool)
    package = importlib.import_module(_PACKAGE)
    for name in files:
        module = ModuleType(f"{_PACKAGE}.{Path(name).stem}_pb2", f"Built from the descriptor of {name}.")
        descriptor = pool.FindFileByName(name)
        builder.BuildMessageAndEnumDescriptors(descriptor, module.__dict__)
        builder.BuildTopDescriptorsAndMessages(descriptor, module.__name__, module.__dict__)
        sys.modules[module.__name__] = module
        setattr(package, module.__name__.rpartition(".")[2], module)


def _lean(files: dict[str, descriptor_pb2.FileDescriptorProto]) -> descriptor_pool.DescriptorPool:
    """A pool of its own in which the fields of _AS_BYTES are bytes: the same wire type, length-delimited."""

    def alter(message: descriptor_pb2.DescriptorProto) -> None:
        for field in message.field:
            if f"{message.name}.{field.name}" in _AS_BYTES:
                field.ClearField("type_name")
                field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
                field.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
        for nested in message.nested_type:
            alter(nested)

    pool = descriptor_pool.DescriptorPool()
    for file in files.values():
        for message in file.message_type:
            alter(message)
    _add(files, pool)
    return pool


_files = _descriptors()
_install(_files)
_pool = _lean(_files)


def _named(pool: descriptor_pool.DescriptorPool, name: str) -> Any:
    """The class of a message. Any, for protobuf makes it at run time and no type checker knows its fields."""
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"communicator_objects.{name}"))


UnityMessage = _named(descriptor_pool.Default(), "UnityMessageProto")
LeanMessage = _named(_pool, "UnityMessageProto")
LeanAction = _named(_pool, "AgentActionProto")
LeanActions = _named(_pool, "UnityRLInputProto.ListAgentActionProto")
