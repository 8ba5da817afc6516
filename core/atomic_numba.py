"""The words of core/atomic.py as real machine atomics, for processors that reorder loads and stores (Arm, POWER)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from core.types import IntArray

# The functions below build LLVM instructions: numba calls them while it compiles, never at run time.


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, place: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [place])


@intrinsic
def _load(typing_context: Any, words: Any, place: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_pointer(context, builder, signature.args[0], *arguments), "acquire", 8)

    return types.int64(words, types.intp), emit


@intrinsic
def _store(typing_context: Any, words: Any, place: Any, value: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, where, what = arguments
        builder.store_atomic(what, _pointer(context, builder, signature.args[0], array, where), "release", 8)
        return context.get_dummy_value()

    return types.void(words, types.intp, types.int64), emit


def _fence(order: str) -> Any:
    @intrinsic
    def fence(typing_context: Any) -> Any:
        def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            builder.fence(order)
            return context.get_dummy_value()

        return types.void(), emit

    return fence


_acquire, _release = _fence("acquire"), _fence("release")


@njit
def load_acquire(words: IntArray, place: int) -> int:
    return _load(words, place)


@njit
def store_release(words: IntArray, place: int, value: int) -> None:
    _store(words, place, value)


@njit
def fence_release() -> None:
    _release()


@njit
def fence_acquire() -> None:
    _acquire()
