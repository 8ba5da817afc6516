"""Roster: who works on which lane of the ring, from start to leave, and what is done when somebody dies or hangs.

A lost worker is replaced on its lane, in the lane's next epoch. Nobody else is paused, reset or asked to do anything.
The first three restarts of a worker come at once, the others ten seconds apart. A worker that has been restarted too
often, or died three times in a row before it had done anything, is given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from core.control import Begin, Server, Stop, worker_name
from core.metrics import Metrics
from core.post import Post
from core.ring import Ring, Word
from core.types import EnvSpec
from core.watch import Loss, WorkerLost

_AT_ONCE = 3
_THEN_EVERY_S = 10.0
_BARREN = 3
"""lives in a row without a step, after which nobody tries again"""
_NOT_STARTED = "not started"
"""a life that there was none of"""
_STALL_S = 5.0
"""without a sign of life, that is told"""
_LONGEST_TICK_S = 0.5
"""counts of the time between two looks: after a pause of our own, nobody is late"""


class Crew(Protocol):
    """The workers themselves, processes or not. Those with a lane have its worker_name."""

    def hire(self, lane: int, epoch: int) -> None:
        """Start the worker of this lane; it says Ready when its environment is up."""

    def dismiss(self, name: str) -> None:
        """It was told to leave: see it out."""

    def kill(self, name: str) -> None:
        """It does not answer any more."""

    def has(self, name: str) -> bool:
        """Whether it is still there."""


@dataclass(frozen=True)
class Limits:
    """What is borne."""

    min_workers: int = 1
    """with fewer, the run ends"""
    max_restarts: int = 10
    """of each worker"""
    hang_s: float = 120.0
    """for a step or a reset"""
    launch_s: float = 300.0
    """from the start of a process until its environment is up"""


class Roster:
    """The lanes of one run and who works there; and the evaluator."""

    def __init__(
        self, ring: Ring, server: Server, crew: Crew, metrics: Metrics, spec: EnvSpec, begin: Begin, limits: Limits
    ) -> None:
        """`begin` is sent to each worker that is ready; its environment must be of `spec`."""
        self._ring, self._server, self._crew, self._metrics = ring, server, crew, metrics
        self._spec, self._begin, self._limits = spec, begin, limits
        self._posts: dict[str, Post] = {}
        self._clock = 0.0
        self._looked = time.monotonic()

    @property
    def at_work(self) -> list[str]:
        """Names of the workers that have begun."""
        return [name for lane, name in self._lanes() if self._posts[name].is_up]

    def has(self, name: str) -> bool:
        """Whether it is there, at work, coming or leaving."""
        return self._crew.has(name)

    def start(self, hired: bool) -> None:
        """A worker for every lane that shall have one; `hired`: they are there already."""
        for lane in np.flatnonzero(self._ring.wanted).tolist():
            self._open_post(lane, hired)

    def keep(
        self,
        name: str,
        hire: Callable[[], None],
        achieved: Callable[[], int],
        alive: Callable[[], int] | None = None,
        is_needed: bool = True,
    ) -> None:
        """Start somebody without a lane, and again when it is lost. If that does no good, the run ends; or, if it is
        not needed, goes on without. `alive` grows while it does not hang, if that can be seen."""
        post = self._posts[name] = Post(hire, achieved, alive, is_needed=is_needed)
        self._hire(name, post)

    def ready(self, name: str, spec: EnvSpec) -> bool:
        """Its environment is up: it begins, if that is the environment that the first one had. False if it was told to
        leave meanwhile."""
        post, lane = self._posts.get(name), self._lane_of(name)
        wanted = self._spec if lane is not None else replace(self._spec, num_agents=spec.num_agents)
        if post is None:
            return False
        if spec != wanted:
            self.kill(name, "does not fit", f"it has {spec}, the first one ready had {wanted}")
            return True
        post.is_up, post.seen_at = True, self._clock
        if lane is not None:
            self._ring.at_work[lane] = self._server.send(name, self._begin)
        return True

    def lost(self, loss: Loss) -> None:
        """Somebody has died: there will be another one, or not. Raises WorkerLost if too few are left."""
        post = self._posts.get(loss.worker)
        if post is None:
            return
        if post.killed is not None:
            loss = Loss(loss.worker, *post.killed)
        self._note(loss.worker, loss.event, f"{loss.detail}{loss.story}")
        lane = self._lane_of(loss.worker)
        if lane is not None:
            self._ring.at_work[lane] = False
        if post.joined:
            del self._posts[loss.worker]
            return
        post.is_up, post.killed = False, None
        has_lived = loss.event != _NOT_STARTED  # else the machine had no room, and may have it later
        if has_lived:
            post.barren = 0 if post.achieved() > post.had_achieved else post.barren + 1
        post.restarts += 1
        if post.restarts <= self._limits.max_restarts and post.barren < _BARREN:
            at_once = has_lived and post.restarts <= _AT_ONCE
            post.due = self._clock if at_once else post.began + _THEN_EVERY_S
            return
        del self._posts[loss.worker]
        left = sum(1 for _ in self._lanes())
        self._note(loss.worker, "given up", f"lost {post.restarts} times; {left} workers are left")
        if post.is_needed or (lane is not None and left < self._limits.min_workers):
            raise WorkerLost(loss)

    def attend(self) -> None:
        """Start who is due, and kill who hangs. Raises WorkerLost as `lost` does."""
        now = time.monotonic()
        self._clock += min(now - self._looked, _LONGEST_TICK_S)
        self._looked = now
        for name, post in list(self._posts.items()):
            if post.due is not None:
                if self._clock >= post.due and not self._crew.has(name):
                    try:
                        self._hire(name, post)
                    except OSError as error:
                        self.lost(Loss(name, _NOT_STARTED, str(error)))
            elif not post.is_up:
                self._kill_if_late(name, post, post.began, self._limits.launch_s, "come up")
            elif post.alive is not None:
                self._look_after(name, post, post.alive())

    def kill(self, name: str, event: str, why: str) -> None:
        """It is of no use as it is; when it is gone, there will be another one."""
        post = self._posts.get(name)
        if post is not None and post.killed is None:
            post.killed = event, why
            self._crew.kill(name)

    def add(self, count: int) -> str:
        """Start more workers; says which. Raises ValueError or MemoryError if there is no room, OSError if a process
        cannot be started: then there are no more than before."""
        lanes = self._make_room(count)
        for started, lane in enumerate(lanes):
            try:
                self._open_post(lane)
            except OSError:
                del self._posts[worker_name(lane)]
                self._ring.wanted[lane] = False
                for each in lanes[:started]:
                    self._see_out(each)
                raise
        return f"start: {', '.join(map(worker_name, lanes))}"

    def admit(self, count: int, who: str) -> list[int]:
        """Lanes for workers that came by themselves, brought by `who`. Raises ValueError or MemoryError if there is no
        room."""
        lanes = self._make_room(count)
        for lane in lanes:
            self._open_post(lane, hired=True, joined=who)
        return lanes

    def left(self, name: str, why: str) -> None:
        """A worker that came by itself has gone, in order."""
        lane = self._lane_of(name)
        if lane is not None:
            self._ring.at_work[lane] = False
            del self._posts[name]
            self._note(name, "leaves", why)

    def remove(self, count: int) -> str:
        """Have the newest lanes' workers leave; says which. What they wrote stays. Raises ValueError if fewer would be
        left than there must be."""
        lanes = sorted(self._lanes())
        least = max(self._limits.min_workers, 1)
        if count > len(lanes) - least:
            raise ValueError(f"workers -{count}: there are {len(lanes)}, and {least} must stay; stop ends the run")
        for lane, _ in lanes[-count:]:
            self._see_out(lane)
        return f"leave: {', '.join(name for _, name in lanes[-count:])}"

    def _see_out(self, lane: int) -> None:
        name = worker_name(lane)
        post = self._posts.pop(name)
        self._ring.at_work[lane] = self._ring.wanted[lane] = False
        self._ring.stop(lane)
        if post.due is None:
            self._server.send(name, Stop())
            self._crew.dismiss(name)
        self._note(name, "leaves", "")

    def _make_room(self, count: int) -> list[int]:
        """So many lanes on which nobody is. Raises ValueError or MemoryError if there is no room."""
        taken = {lane for lane, _ in self._lanes()}
        others = set(range(self._ring.num_lanes)) - taken
        free = sorted(lane for lane in others if not self._crew.has(worker_name(lane)))
        if count > len(free):
            raise ValueError(
                f"workers +{count}: the ring has room for {len(free)} more beside the {len(taken)}; "
                "start the run with more --workers"
            )
        for lane in free[:count]:
            self._ring.add_lane(lane)
        return free[:count]

    def _lane_of(self, name: str) -> int | None:
        return next((lane for lane, worker in self._lanes() if worker == name), None)

    def _lanes(self) -> list[tuple[int, str]]:
        """Those that belong to somebody."""
        names = ((lane, worker_name(lane)) for lane in range(self._ring.num_lanes))
        return [(lane, name) for lane, name in names if name in self._posts]

    def _open_post(self, lane: int, hired: bool = False, joined: str = "") -> None:
        self._ring.wanted[lane] = not joined
        words = self._ring.words[lane]
        post = self._posts[worker_name(lane)] = Post(
            hire=lambda: self._crew.hire(lane, words.item(Word.LIVES)),
            achieved=lambda: words.item(Word.STEPS),
            alive=lambda: words.item(Word.ALIVE),
            joined=joined,
        )
        self._hire(worker_name(lane), post, hired)

    def _hire(self, name: str, post: Post, hired: bool = False) -> None:
        post.due, post.began, post.had_achieved = None, self._clock, post.achieved()
        if not hired:
            post.hire()
        lane = self._lane_of(name)
        epoch = None if lane is None else self._ring.words.item(lane, Word.LIVES)
        event = "joins" if post.joined else "restarted" if post.restarts else "started"
        more = {"detail": post.joined} if post.joined else {}
        self._metrics.write("worker", worker=name, event=event, epoch=epoch, **more)

    def _look_after(self, name: str, post: Post, seen: int) -> None:
        if seen != post.seen:
            if post.stalls:
                self._note(name, "goes on", f"after {self._clock - post.seen_at:.1f} s")
            post.seen, post.seen_at, post.stalls = seen, self._clock, False
        elif self._clock - post.seen_at > _STALL_S and not post.stalls:
            post.stalls = True
            self._note(name, "stalls", f"no sign of life for {_STALL_S:.0f} s")
        else:
            self._kill_if_late(name, post, post.seen_at, self._limits.hang_s, "end a step, a reset or a turn")

    def _kill_if_late(self, name: str, post: Post, since: float, limit_s: float, what: str) -> None:
        if self._clock - since > limit_s:
            self.kill(name, "hangs", f"has not managed to {what} in {limit_s:g} s")

    def _note(self, worker: str, event: str, detail: str) -> None:
        self._metrics.write("worker", worker=worker, event=event, detail=detail)
