"""Group: the learners of one job, one to a rank, as torchrun starts them, and all that travels between them.

Every rank makes the same calls in the same order; each call waits for all of them. Who is missing is named after some
seconds, and given up after `longest_s`: GroupLost ends the round then, and torchrun begins the next one.

A process is in one group for its life, as torch.distributed has it. `joined` says in which: so an algorithm need not be
told, and a run of one learner pays for nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from core.types import in_one_line
from core.watch import Interrupted

_TOLD_AFTER_S = 3.0
"""of waiting for others, who it is that does not come"""
_LOOK_EVERY_S = 0.5
_ROUND = "sharl"
"""where rank 0 says which round this is"""
_NAP_S = 0.02
_START_S = 60.0
"""that they may take to find each other"""
_STORE_S = 2.0
"""that the store may take to answer"""
_LONGEST = 200
"""letters of what torch says"""

_joined: Group | None = None


def joined() -> Group | None:
    """The group that this process learns in, if it is one of several."""
    return _joined


class GroupLost(Exception):
    """Somebody is gone, or cannot be heard: this round is over. The message names who, as far as that is known."""


class Differs(Exception):
    """The ranks have not the same parameters any more; the message names who is alone."""


class _Work(Protocol):
    """What torch.distributed calls a collective that is under way."""

    def wait(self, timeout: timedelta = ..., /) -> bool: ...

    def is_completed(self) -> bool: ...


class Group:
    """This process's place in the group, by torchrun's environment variables."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.local_rank, self.local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        self.tell: Callable[[str, str], None] = lambda event, detail: None
        """called when somebody does not come, and when they come after all"""
        restarts, given = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["TORCHELASTIC_RUN_ID"]
        has_id = given != "none"  # or else there is one agent for all, which counts its restarts
        self.job = given if has_id else f"{socket.gethostname()}-{os.getppid()}"
        """the same in each round of one job"""
        self.may_go_on = has_id or restarts != "0"
        """there may have been a round before this one"""
        self.interrupted: Callable[[], bool] = lambda: False
        """whether this process is to end: it waits no more for others who do not come"""
        self._longest_s = _START_S
        self._count = 0  # of what was waited for
        self._rooms: dict[tuple[int, torch.device], Tensor] = {}
        store, _, _ = next(iter(rendezvous("env://", timeout=timedelta(seconds=_START_S))))
        self._store = self._enter(store)

    def _enter(self, store: Store) -> PrefixStore:
        """Where the words of this round are kept. The store outlives rounds, and so do the words of the dead: who is
        meant is told by a number that each process has drawn for itself."""
        mine, deadline = uuid.uuid4().hex, time.monotonic() + _START_S
        if self.leads:
            store.set(_ROUND, mine)
            self._store = PrefixStore(mine, store)
            self.say("begin", {str(rank): self.hear(f"comes-{rank}") for rank in range(1, self.size)})
            return self._store
        while time.monotonic() < deadline:
            if store.check([_ROUND]):
                self._store = PrefixStore(store.get(_ROUND).decode(), store)
                self.say(f"comes-{self.rank}", mine)
                if self._store.check(["begin"]) and self.hear("begin").get(str(self.rank)) == mine:
                    return self._store
            time.sleep(_NAP_S)
        raise GroupLost(f"rank {self.rank} has not heard of rank 0 for {_START_S:.0f} s")

    @property
    def leads(self) -> bool:
        """Whether this rank decides and keeps the records."""
        return self.rank == 0

    def agree(self, given: dict[str, Any]) -> None:
        """Raises ValueError, on every rank, naming rank and field, unless all were given the same."""
        self.say(f"given-{self.rank}", given)
        them = [self.hear(f"given-{rank}") for rank in range(self.size)]
        self.say(f"knows-{self.rank}", True)
        for rank in range(self.size) if self.leads else ():  # the store may end with this process
            self.hear(f"knows-{rank}")
        for rank, its in enumerate(them):
            for name in sorted({**them[0], **its}):
                if them[0].get(name) != its.get(name):
                    raise ValueError(
                        f"rank {rank} was given {name} {its.get(name)!r}, rank 0 {them[0].get(name)!r}; "
                        "start all of them with the same options"
                    )

    def say(self, key: str, what: Any) -> None:
        """Leave it for the others."""
        self._store.set(key, msgspec.json.encode(what).decode())

    def hear(self, key: str, within_s: float = _START_S) -> Any:
        """What somebody leaves there, once it is there. Raises GroupLost, or Interrupted."""
        deadline = time.monotonic() + within_s
        try:
            while not self._store.check([key]):
                if self.interrupted():
                    raise Interrupted
                if time.monotonic() > deadline:
                    raise GroupLost(f"nobody has said {key!r} for {within_s:.0f} s")
                time.sleep(_NAP_S)
            return msgspec.json.decode(self._store.get(key))
        except RuntimeError as error:  # torch's
            raise GroupLost(f"nobody can say {key!r}, the store is gone: {in_one_line(error, _LONGEST)}") from error

    def connect(self, device: torch.device, longest_s: float, launch_s: float) -> None:
        """Join: from now on the ranks learn together. `longest_s`: that one may be waited for; `launch_s`: that it may
        take longer to come up. Raises GroupLost or Interrupted."""
        global _joined
        self._longest_s = longest_s
        if self.size == 1:
            return
        self.say(f"here-{self.rank}", True)
        for rank in range(self.size):
            self.hear(f"here-{rank}", launch_s + longest_s)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        limit = timedelta(seconds=longest_s + _TOLD_AFTER_S)  # ours comes first: it says who
        try:
            distributed.init_process_group(
                backend, store=self._store, rank=self.rank, world_size=self.size, timeout=limit
            )
        except RuntimeError as error:
            raise GroupLost(f"the {self.size} ranks cannot reach each other: {in_one_line(error, _LONGEST)}") from error
        _joined = self

    def sum(self, x: Tensor) -> Tensor:
        """Make `x` the sum over all ranks, in place; the same bits on each."""
        self._wait(distributed.all_reduce(x, async_op=True), x.device)
        return x

    def average(self, grad: Tensor, loss: Tensor, weight: float | Tensor) -> Tensor:
        """Make (P,) `grad` the mean over all ranks, each counting by its `weight`, in place; returns that of `loss`."""
        key = len(grad), grad.device
        if key not in self._rooms:
            with torch.inference_mode(False):  # for whoever comes, in that mode or not
                self._rooms[key] = grad.new_empty(len(grad) + 2)
        room = self._rooms[key]
        torch.mul(grad, weight, out=room[:-2])
        room[-2], room[-1] = loss * weight, weight
        self.sum(room)
        torch.div(room[:-2], room[-1], out=grad)
        return room[-2] / room[-1]

    def gather(self, x: Tensor) -> Tensor:
        """(size, n) what each rank has as its (n,) `x`, on the CPU."""
        them = [torch.empty_like(x) for _ in range(self.size)]
        self._wait(distributed.all_gather(them, x, async_op=True), x.device)
        return torch.stack(them)

    def share(self, state: Any) -> Any:
        """Rank 0's `state`, tensors and numbers in dicts, on every rank."""
        file = io.BytesIO()
        if self.leads:
            torch.save(state, file)
        size = int(self.sum(torch.tensor([len(file.getvalue())])))
        raw = torch.frombuffer(file.getbuffer(), dtype=torch.uint8) if self.leads else torch.zeros(size).byte()
        self._wait(distributed.broadcast(raw, 0, async_op=True), raw.device)
        return torch.load(io.BytesIO(raw.numpy().tobytes()), map_location="cpu", weights_only=True)

    def compare(self, digest: str, updates: int) -> None:
        """Raises Differs, on every rank, unless all have the same."""
        them = [bytes(each.tolist()) for each in self.gather(torch.tensor(list(bytes.fromhex(digest))))]
        usual, _ = Counter(them).most_common(1)[0]  # of equals rank 0's
        if alone := [str(rank) for rank, its in enumerate(them) if its != usual]:
            raise Differs(
                f"after {updates:,} updates rank {' and '.join(alone)} has not the parameters that the others have; "
                "the run goes on from its newest checkpoint (torchrun --max-restarts, or --resume)"
            )

    def _wait(self, work: _Work, device: torch.device) -> None:
        """Until all ranks have come. On a GPU nobody waits: NCCL ends the process that waits for too long."""
        if device.type != "cpu":
            work.wait()  # no limit: it returns at once, and NCCL has one of its own
            return
        self._count += 1
        begun, told = time.monotonic(), False
        while True:
            was_over = work.is_completed()
            try:
                work.wait(timedelta(seconds=_LOOK_EVERY_S))
                break
            except RuntimeError as error:
                waited = time.monotonic() - begun
                if was_over:  # gloo's own: a connection has ended
                    raise GroupLost(f"{self._missing()} is gone: {in_one_line(error, _LONGEST)}") from error
                if waited > self._longest_s or (waited > _TOLD_AFTER_S and self.interrupted()):
                    raise GroupLost(f"{self._missing()} has not come for {waited:.0f} s") from error
                if waited > _TOLD_AFTER_S and not told:
                    self.tell("stalls", f"{self._missing()} has not come for {waited:.0f} s")
                    told = True
        if told:
            self.tell("goes on", f"after {time.monotonic() - begun:.1f} s")

    def _missing(self) -> str:
        """Which ranks do not wait here for the others."""
        found: list[str] = []

        def ask() -> None:
            key = f"waits-{self._count}"
            with contextlib.suppress(RuntimeError):  # the store may be gone, too
                self._store.set(f"{key}-{self.rank}", "")
                time.sleep(_LOOK_EVERY_S)  # others notice a little later
                missing = [each for each in range(self.size) if not self._store.check([f"{key}-{each}"])]
                found.append(" and ".join(f"rank {each}" for each in missing) or "what another rank has sent")

        # a store behind a cut link does not answer, and a thread need not be waited for
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(_STORE_S)
        return found[0] if found else "another rank"
