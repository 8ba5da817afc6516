"""Ordered loads and stores of one int64 word between processes.

`words` is an aligned int64 array in shared memory. What an acquire load sees published was written before the
release store that published it. On x86-64 every aligned load and store of a word has that order by itself (total
store order), and the interpreter's calls keep the compiler from moving them, so plain numpy is enough and both
fences are free. Elsewhere numba emits the machine's own atomic instructions (core/atomic_numba.py).

What is *not* a fence between processes: the GIL, time.sleep(0), a threading.Lock of one's own.
"""

from __future__ import annotations

import platform

from core.types import IntArray

if platform.machine() in ("x86_64", "AMD64"):

    def load_acquire(words: IntArray, place: int) -> int:
        """The word at `place`; whatever its writer wrote before it is visible from here on."""
        return words.item(place)

    def store_release(words: IntArray, place: int, value: int) -> None:
        """Make `value` visible, after everything written before it."""
        words[place] = value

    def fence_release() -> None:
        """What was stored before becomes visible before whatever is stored next."""

    def fence_acquire() -> None:
        """What was loaded before was loaded before whatever is loaded next."""

else:
    from core.atomic_numba import fence_acquire, fence_release, load_acquire, store_release

__all__ = ["fence_acquire", "fence_release", "load_acquire", "store_release"]
