"""Train: `python -m scripts.train ddpg`.

Owns the order of start and stop: check what was asked for, take memory and a directory (scripts/site.py), start
processes, learn (scripts/training.py); at the end the processes go first, and then what they used.
"""

from __future__ import annotations

import os
import sys

from scripts.entry import INTERRUPTED, code_of, end_at_once

if __name__ == "__main__":
    end_at_once()  # before the slow imports

import contextlib

import torch

from core.group import Differs, GroupLost
from core.watch import Interrupted, WorkerLost
from envproc.env import EnvFailed
from scripts.audience import audience_may_leave
from scripts.command_line import UsageError
from scripts.interrupts import Interrupts
from scripts.plan import Plan, make_plan, rank_here, settled
from scripts.site import take_site
from scripts.training import DEGRADED, FATAL, Training

USAGE = 2


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 2 usage, 3 a worker was lost, 4 an error in the learner, or losses that stay
    non-finite, 130 interrupted."""
    try:
        plan = make_plan(arguments)
        with audience_may_leave():
            return train(plan)
    except UsageError as error:
        print(f"error: {rank_here()}{error}", file=sys.stderr)
        return USAGE
    except (GroupLost, Differs) as lost:
        print(f"error: {rank_here()}{lost}", file=sys.stderr)
        return FATAL
    except Interrupted:
        return INTERRUPTED


def train(plan: Plan) -> int:
    """One run, from its directory to its summary. Returns the exit code.

    Raises UsageError, and leaves nothing behind, if what was asked for cannot be done; GroupLost or Differs if several
    learners do not come together.
    """
    plan = settled(plan)
    torch.manual_seed(plan.options.seed)
    torch.set_num_threads(plan.options.threads)
    interrupts = Interrupts()
    if plan.group:
        plan.group.interrupted = interrupts.asked
    with contextlib.ExitStack() as opened:
        site = take_site(plan, opened)
        training = Training(plan, site, interrupts, opened)
        try:
            training.come_up()
        except (EnvFailed, WorkerLost) as lost:
            training.write_config()  # the directory stays, with what the workers have said
            print(f"error: {lost}\nrun: {site.path}", file=sys.stderr)
            return DEGRADED
        except (UsageError, Interrupted, GroupLost, Differs) as refused:
            training.give_up()
            if not isinstance(refused, Interrupted):
                raise
            print("interrupted before the environment was up", file=sys.stderr)
            return INTERRUPTED
        training.open_records()
        training.go_on()
        training.end()
    if training.trouble:
        print(f"error: {rank_here()}{training.trouble}", file=sys.stderr)
    if training.timeline:
        print(training.timeline)
    if plan.leads:
        print(f"run: {site.path}")
    return training.exit_code


if __name__ == "__main__":
    code = code_of(main)
    if sys.stderr:
        sys.stderr.flush()
    # All is closed. To unload torch would take half a second, and a Ctrl-C in it would end Python by the signal.
    os._exit(code)
