"""Plot: `python -m scripts.plot RUN... --out curves.png` draws the learning curves of runs."""

from __future__ import annotations

from scripts.entry import end_at_once, run_main

if __name__ == "__main__":
    end_at_once()  # before the slow imports

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from scripts.command_line import UsageError, check_output, read_command_line
from scripts.curves import Array, Axis, Curve, Group, group_runs, over_runs, read_run, thinned
from scripts.runs import find_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""that colour-blind people tell apart: Okabe and Ito 2008, Color Universal Design"""
_X_LABELS = {"steps": "agent steps", "time": "seconds"}
_PANELS = (
    ("replay ratio", "samples of a row", ("replay_ratio_held", "replay_ratio")),
    ("weights' lag", "updates behind the learner", ("weights_lag",)),
    ("collecting", "agent steps/s", ("agent_steps_per_s",)),
    ("learning", "updates/s", ("updates_per_s",)),
)
"""title, unit, and what the progress records call it: the first a line, the second dashed"""


@dataclass(frozen=True)
class Options:
    """Draw the learning curves of runs; those that differ in nothing but their seeds are one curve."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """names of runs, or their directories"""
    out: Path = Path("curves.png")
    """the picture"""
    x: Axis = "steps"
    """agent steps, or time in seconds since the start"""
    runs_dir: Path = Path("runs")
    """where runs are kept"""


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 2 usage."""
    try:
        options = read_command_line(Options, arguments, "python -m scripts.plot")
        check_output("--out", options.out, ".png")
        if not options.runs:
            raise UsageError("name a run: python -m scripts.plot RUN... [options]")
        groups = group_runs([read_run(find_run(run, options.runs_dir)) for run in dict.fromkeys(options.runs)])
        try:
            draw(groups, options.x, options.out)
        except OSError as error:
            raise UsageError(f"--out {options.out} cannot be written: {error.strerror}") from error
        except ModuleNotFoundError as error:
            raise UsageError(f'plots need {error.name}, which is missing: pip install "sharl[plot]"') from error
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"curves: {options.out}")
    return 0


def draw(groups: Sequence[Group], axis: Axis, file: Path) -> None:
    """One picture: returns on the left, what the runs did meanwhile on the right."""
    # only here: whoever asks for help, or mistypes a run, need not wait for it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(12, 6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3, width_ratios=[2, 1, 1])
    returns, *others = (figure.add_subplot(grid[at]) for at in ((slice(2), 0), (0, 1), (0, 2), (1, 1), (1, 2)))
    pens = [_Pen(group, axis, colour) for group, colour in zip(groups, cycle(_COLOURS), strict=False)]
    returns.set_title("return of an episode")
    returns.set_ylabel("sum of rewards")
    for pen in pens:
        pen.draw_returns(returns)
    for panel, (title, unit, names) in zip(others, _PANELS, strict=True):
        panel.set_title(title)
        panel.set_ylabel(unit)
        for name, style in zip(names, ("-", "--"), strict=False):
            for pen in pens:
                pen.draw(panel, pen.group.curves("progress", name, axis), style)
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter(EngFormatter(sep=""))
        if not panel.lines:  # rows read in order are not replayed
            panel.text(0.5, 0.5, "nothing is replayed", ha="center", transform=panel.transAxes)
            panel.set(xticks=[], yticks=[])
    for panel in (returns, *others):
        panel.grid(color="0.9")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel(_X_LABELS[axis])
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.margins(x=0.02)
    kinds = [
        Line2D([], [], color="0.3", linewidth=2.0, label="evaluation, without exploration"),
        Line2D([], [], color="0.3", linestyle="", marker=".", label="training"),
        Patch(color="0.3", alpha=0.2, label="lowest to highest run; of one run, a std of its episodes"),
        Line2D([], [], color="0.3", linewidth=1.2, linestyle="--", label="replay ratio asked for"),
    ]
    colours = [Line2D([], [], color=pen.colour, linewidth=2, label=pen.group.label) for pen in pens]
    figure.legend(handles=colours, loc="outside upper left", ncols=3, frameon=False)
    figure.legend(handles=kinds, loc="outside lower left", ncols=4, frameon=False, fontsize="small")
    figure.savefig(file, dpi=100)


class _Pen:
    """Draws one group of runs, always in its colour."""

    def __init__(self, group: Group, axis: Axis, colour: str) -> None:
        self.group, self.axis, self.colour = group, axis, colour

    def draw(self, panel: Axes, curves: Sequence[Curve], style: str = "-", width: float = 1.2) -> None:
        """The mean in the band from the lowest run to the highest; beyond where all went, each by itself, faintly."""
        if not curves:
            return
        curves = [thinned(curve) for curve in curves]
        together = over_runs(curves)
        if len(curves) > 1:
            self.fill(panel, together.x, together.low, together.high)
            for curve in curves:
                panel.plot(*curve, color=self.colour, alpha=0.35, linewidth=0.6, linestyle=style)
        dot = "o" if len(together.x) == 1 else ""  # a line through one point would not be seen
        panel.plot(
            together.x, together.mean, color=self.colour, linewidth=width, linestyle=style, marker=dot, markersize=4
        )

    def fill(self, panel: Axes, x: Array, low: Array, high: Array) -> None:
        panel.fill_between(x, low, high, color=self.colour, alpha=0.2, linewidth=0)

    def draw_returns(self, panel: Axes) -> None:
        for x, y in self.group.curves("progress", "return_mean", self.axis):
            # dots: there is nothing between one moment when episodes ended and the next
            panel.plot(x, y, ".", color=self.colour, markersize=3, alpha=0.5)
        means, stds = (self.group.curves("eval", name, self.axis) for name in ("return_mean", "return_std"))
        if len(means) == 1:
            (x, mean), (_, std) = means[0], stds[0]
            self.fill(panel, x, mean - std, mean + std)
        self.draw(panel, means, width=2.0)


if __name__ == "__main__":
    run_main(main)
