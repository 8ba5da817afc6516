"""Updates a second: ours, beside what they cannot go below, and beside what others do.

An update is a gradient step with what it needs: rows drawn from a full buffer, then learned from. "bare" is its
products of matrices and its optimizer's arithmetic alone, on arrays that are there (scripts/profile/products.py);
"plain" a DDPG, TD3 or SAC in eager torch: separate parameters, autograd, torch.optim.Adam (scripts/profile/plain.py);
"SB3" is Stable-Baselines3 in an interpreter that has it (--sb3), with the same networks and batch, its own defaults
otherwise. All on one core, in turns, never at once.

On a GPU "ours" is what it is by default, CUDA graphs, "eager" the same without them, "busy" the part of the time in
which the GPU has something of ours to do.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from statistics import median

import torch

from core.learner import fit_process
from scripts.command_line import UsageError
from scripts.profile.another import Another
from scripts.profile.cases import CASES, Case, Ours, ours
from scripts.profile.measure import in_rounds, rate, ratio
from scripts.profile.plain import UPDATES
from scripts.profile.products import Watched
from scripts.profile.report import Figure, Report, Table, option_parser, positive, read_options

ROUNDS = 15  # short ones: a shared machine changes its speed within seconds, and a round's sides should share it
SECONDS = 0.5
IN_SB3 = ("ddpg", "td3", "sac", "dqn", "qrdqn", "ppo")
WARM_UP = 10
"""updates"""
BUSY = 100
"""updates whose time on the device is added up"""


class StableBaselines3:
    """In its own interpreter."""

    def __init__(self, process: Another) -> None:
        self._process = process
        self.versions = ""

    def measure(self, case: Case, seconds: float) -> float:
        """Updates per second."""
        answer = self._process.ask({**asdict(case), "seconds": seconds})
        self.versions = answer["versions"]
        return float(answer["updates_per_s"])


def bare(mine: Ours) -> Callable[[], int]:
    """What does the products and the optimizer's arithmetic of some updates, and returns how many updates."""
    watched, done = Watched(), 0
    for _ in range(mine.period):
        experience = mine.draw()
        with watched:
            done += mine.learn(experience).updates

    def again() -> int:
        watched.again()
        return done

    return again


def measure(case: Case, sb3: StableBaselines3 | None, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Updates per second of each side there is, in each round."""
    is_cuda = case.device == "cuda"
    finish = torch.cuda.synchronize if is_cuda else int
    torch.backends.cuda.matmul.allow_tf32 = case.precision == "tf32"
    with contextlib.ExitStack() as opened:
        mine = opened.enter_context(ours(case))
        for _ in range(WARM_UP * mine.period):
            mine.update()
        works = {"ours": mine.update}
        if is_cuda:
            works["eager"] = opened.enter_context(ours(case, graphs=False)).update
        else:
            works["bare"] = bare(mine)
        if case.algorithm in UPDATES and case.precision != "bfloat16":
            works["plain"] = UPDATES[case.algorithm](case)
        sides: dict[str, Callable[[], float]] = {
            name: partial(rate, work, seconds, finish) for name, work in works.items()
        }
        if sb3 and case.algorithm in IN_SB3 and case.precision == "float32":
            sides["sb3"] = lambda: sb3.measure(case, seconds)
        figures = in_rounds(sides, rounds)
        if is_cuda:
            figures["busy"] = [_device_seconds(mine) * median(figures["ours"])]
        return figures


def _device_seconds(mine: Ours) -> float:
    """Of the device, for one update."""
    activities, done = [torch.profiler.ProfilerActivity.CUDA], 0
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(BUSY):
            done += mine.update()
        torch.cuda.synchronize()
    microseconds: float = sum(each.self_device_time_total for each in profiler.key_averages())
    return microseconds / done / 1e6


def main(arguments: list[str]) -> int:
    """Returns the exit code. Raises UsageError if an option cannot be meant."""
    parser = option_parser("learner", __doc__)
    known = tuple(dict.fromkeys(case.algorithm for case in CASES))
    parser.add_argument("--only", nargs="+", choices=known, default=known, metavar="ALGORITHM", help=", ".join(known))
    parser.add_argument("--batch", nargs="+", type=positive, help="instead of each case's own")
    parser.add_argument("--width", nargs="+", type=positive, help="of each hidden layer, instead of each case's own")
    parser.add_argument("--device", nargs="+", choices=("cpu", "cuda"), default=["cpu"])
    parser.add_argument("--precision", nargs="+", choices=("float32", "tf32", "bfloat16"), default=["float32"])
    parser.add_argument("--mirror", action="store_true", help="cuda: hold the ring there, too (--replay-device)")
    parser.add_argument("--sb3", metavar="PYTHON", help="an interpreter that has stable-baselines3 and sb3-contrib")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of one side in one of the rounds")
    options = read_options(parser, arguments)
    if "cuda" in options.device and not torch.cuda.is_available():
        raise UsageError("--device cuda cannot be used: torch finds no such device here")
    rounds, seconds = (1, 0.02) if options.quick else (ROUNDS, options.seconds)
    torch.set_num_threads(1)
    fit_process()  # as scripts.train does
    report = Report("learner", options.json)
    with contextlib.ExitStack() as opened:
        opened.enter_context(_on_one_core())  # other processes inherit it
        sb3 = None
        if options.sb3:
            sb3 = StableBaselines3(opened.enter_context(Another(options.sb3, "scripts.profile.sb3")))
        for device in options.device:
            table = _table(report, device)
            for case in _cases(options, device):
                if options.quick:
                    case = replace(case, capacity=4000)
                table.row(str(case), *_figures(device, measure(case, sb3, rounds, seconds)))
        if sb3 and sb3.versions:
            report.note(f"SB3: {sb3.versions}")
    report.write()
    return 0


def _cases(options: argparse.Namespace, device: str) -> Iterator[Case]:
    """Each case at all of these sizes; what the sizes make equal comes once."""
    sizes = itertools.product(options.batch or [None], options.width or [None], options.precision)
    mirror = options.mirror and device == "cuda"
    cases = [
        case.sized(batch, width, device, precision, mirror)
        for case, (batch, width, precision) in itertools.product(CASES, sizes)
        if case.algorithm in options.only
    ]
    yield from {str(case): case for case in cases}.values()


def _table(report: Report, device: str) -> Table:
    if device == "cpu":
        return report.table("Updates a second", 40, "ours", "bare", "of bare", "plain", "SB3", "of SB3")
    report.note(f"GPU: {torch.cuda.get_device_name(device)}")
    return report.table("Updates a second", 36, "ours", "eager", "plain", "of plain", "SB3", "busy")


def _figures(device: str, rates: dict[str, list[float]]) -> list[Figure]:
    def middle(side: str) -> Figure:
        return median(rates[side]) if side in rates else None

    def of(side: str) -> Figure:
        return ratio(rates["ours"], rates[side]) if side in rates else None

    if device == "cpu":
        return [middle("ours"), middle("bare"), of("bare"), middle("plain"), middle("sb3"), of("sb3")]
    return [middle("ours"), middle("eager"), middle("plain"), of("plain"), middle("sb3"), middle("busy")]


@contextlib.contextmanager
def _on_one_core() -> Iterator[None]:
    """Linux only; elsewhere wherever the system likes."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
