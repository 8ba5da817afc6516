"""Toy environments for the tests of whole runs: `--env tests/process/toys.py:Counting`.

All are Counting with one twist. They know by their process's command line where they are: in the main process (which
builds one to read its spec), in a worker, or in the evaluator; the twists happen in workers alone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from core.types import Action, EnvSpec, FieldSpec, IntArray
from envproc.ball3d import Ball3D
from envproc.env import CannotReset, Picture, Step
from tests.process.counting import Counting, epoch, name

TROUBLE = "the toy broke, as it was built to"
STEPS_BEFORE_TROUBLE = 50


class Slow(Counting):
    """As most environments are: every step of a worker takes a while."""

    def step(self, action: Action) -> Step:
        if self.in_worker:
            time.sleep(0.01)
        return super().step(action)


class Drawn(Slow):
    """Can be looked at: red above, blue below."""

    pictures_per_s = 200.0

    def picture(self) -> Picture:
        picture = np.zeros((4, 4, 3), np.uint8)
        picture[:2, :, 0] = picture[2:, :, 2] = 255
        return picture


class AsWideAs(Slow):
    """Observes $TOY_WIDTH numbers; 3 without it."""

    def __init__(self, copies: int) -> None:
        super().__init__(copies)
        self.spec = EnvSpec({"vector": FieldSpec((self._width,))}, self.spec.action, self.spec.num_agents)

    @property
    def _width(self) -> int:
        return int(os.environ.get("TOY_WIDTH", "3"))

    def _see(self) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return np.resize(super()._see(), (len(self._agents), self._width))


class OneSlow(Counting):
    """Worker 0 is slow, the others are not."""

    def step(self, action: Action) -> Step:
        if name() == "worker-0":
            time.sleep(0.02)
        return super().step(action)


class Improves(Counting):
    """Whatever is done: after the k-th reset every episode returns k. So the k-th evaluation does."""

    resets = 0

    def reset(self, seed: int) -> Step:
        self.resets += 1
        return super().reset(seed)

    def step(self, action: Action) -> Step:
        step = super().step(action)
        reward = np.full(len(step.ended.agent), self.resets, np.float32)
        return step._replace(reward=np.zeros_like(step.reward), ended=step.ended._replace(reward=reward))


class InTrouble(Counting):
    """Something happens in worker 0 after some steps."""

    def step(self, action: Action) -> Step:
        if self.steps >= STEPS_BEFORE_TROUBLE and name() == "worker-0":
            self.trouble()
        return super().step(action)

    def trouble(self) -> None:
        raise NotImplementedError


class Raises(InTrouble):
    """Leaves a file in $TOY_MARKS for each process that closed its environment in spite of it."""

    def trouble(self) -> None:
        raise RuntimeError(TROUBLE)

    def close(self) -> None:
        if name() != "main":
            (Path(os.environ["TOY_MARKS"]) / name()).touch()


class Exits(InTrouble):
    """The worst of exits: one that says that all is well."""

    def trouble(self) -> None:
        raise SystemExit(0)


class ExitsAtOnce(InTrouble):
    """Without unwinding anything, as a crash in native code does."""

    def trouble(self) -> None:
        os._exit(0)


class KillsItself(InTrouble):
    def trouble(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class LeavesAChild(KillsItself):
    """A child made by fork has what its parent had open, the control channel's connection, too, and outlives it."""

    def trouble(self) -> None:
        if os.fork() == 0:
            time.sleep(600)
        super().trouble()


class RaisesALotBesideAThread(InTrouble):
    """An error that no control message can hold, and a thread that keeps the process from ending by itself."""

    def trouble(self) -> None:
        threading.Thread(target=time.sleep, args=(60,)).start()
        raise RuntimeError(TROUBLE + "!" * 200_000)


class Unspeakable(Exception):
    """Can be neither pickled nor printed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("words fail me")


class RaisesTheUnspeakable(InTrouble):
    def trouble(self) -> None:
        raise Unspeakable


class RaisesAndHangsInClose(Raises):
    """As with a simulator that does not answer any more: neither the step nor the goodbye."""

    def close(self) -> None:
        if name() == "worker-0":
            time.sleep(600)


class RaisesAtHome(Counting):
    """In the main process it can be built; in a worker it cannot."""

    def __init__(self, copies: int) -> None:
        super().__init__(copies)
        if self.in_worker:
            raise RuntimeError(TROUBLE)


class RaisesInTheEvaluator(Counting):
    def step(self, action: Action) -> Step:
        if name() == "evaluator":
            raise RuntimeError(TROUBLE)
        return super().step(action)


class ExitsEverywhere(InTrouble):
    """In whichever process it is stepped."""

    def step(self, action: Action) -> Step:
        if self.steps >= STEPS_BEFORE_TROUBLE:
            raise SystemExit(0)
        return super().step(action)


class Hangs(InTrouble):
    """A step that does not come back, whoever asks politely."""

    def trouble(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)


class HangsOnce(Hangs):
    """In worker 0's first life."""

    def trouble(self) -> None:
        if epoch() == 0:
            super().trouble()


def hang_once() -> None:
    """In worker 0, whichever life that is."""
    if name() == "worker-0" and not (mark := Path(os.environ["TOY_MARKS"]) / "hung").exists():
        mark.touch()
        time.sleep(600)


class HangsOnceInReset(Counting):
    def reset(self, seed: int) -> Step:
        hang_once()
        return super().reset(seed)


class HangsOnceAtLaunch(Counting):
    def __init__(self, copies: int) -> None:
        super().__init__(copies)
        hang_once()


class DiesAtBirth(Counting):
    """Worker 1 does, each time."""

    def __init__(self, copies: int) -> None:
        super().__init__(copies)
        if name() == "worker-1":
            os._exit(7)


class LongEvaluations(Counting):
    def step(self, action: Action) -> Step:
        if name() == "evaluator":
            time.sleep(0.5)
        return super().step(action)


class Endless(Counting):
    """Its episodes never end, so neither does an evaluation."""

    def __init__(self, copies: int) -> None:
        super().__init__(copies)
        self._length = self._length * 0 + 2**40


class SlowToLaunch(Counting):
    """Takes its time to start, except in the main process."""

    def __init__(self, copies: int) -> None:
        super().__init__(copies)
        if name() != "main":
            time.sleep(60)


class TellsModules(Ball3D):
    """Writes into $TOY_MARKS what a worker has imported."""

    def __init__(self, copies: int) -> None:
        super().__init__(areas=copies)

    def step(self, action: Action) -> Step:
        (Path(os.environ["TOY_MARKS"]) / "modules").write_text("\n".join(sys.modules))
        return super().step(action)


class Deaf(Counting):
    """Cannot reset agent 3, and says so; forgets to reset the others."""

    def reset_agents(self, agents: IntArray) -> None:
        if 3 in agents:
            raise CannotReset("agent 3 is out of reach")


class NotAnEnv:
    """It can be built, and that is all."""

    def __init__(self, copies: int) -> None:
        self.copies = copies


class RaisesInReset(Counting):
    def reset(self, seed: int) -> Step:
        raise RuntimeError(TROUBLE)
