"""What several runs of one search attain: the best, the median and the worst of them at each latency.

The surfaces are those of the empirical attainment function (Grunert da Fonseca, Fonseca & Hall, EMO 2001), computed by
moocore: a point is on or below the median surface where at least half of the runs have a trial that is as fast and as
robust.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import moocore
import numpy as np
import pyarrow as pa
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustsearch.errors import RunError
from robustsearch.pareto import hypervolume, objectives

from . import style
from .front import SLACK, corners, front_rows, reference_latency
from .front_figure import scale
from .front_text import length
from .load import Run
from .paper import draw_caption

SURFACES = {"best": 0, "median": 50, "worst": 100}
"""Name of a surface to the percentage of the runs that attain it; 0 is any of them."""

_ALIKE = ("dataset", "split", "protocol", "epsilon")


def check(runs: Sequence[Run], tables: Sequence[pa.Table]) -> None:
    """Find out whether runs can be compared, given the `front_table` of each.

    Raises:
        RunError: they were not measured on the same terms, two have one name, or one has no front.
    """
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise RunError(f"runs that are compared must have different names, but got {', '.join(names)}")
    for column in _ALIKE:
        found = {str(value) for table in tables for value in table[column].to_pylist() if value is not None}
        if len(found) > 1:
            raise RunError(f"runs that are compared must have the same {column}, but got {', '.join(sorted(found))}")
    for run, table in zip(runs, tables, strict=True):
        if not front_rows(table):
            raise RunError(f"runs that are compared must have a front, but {run.name} has none")


def end(tables: Sequence[pa.Table]) -> float:
    """Latency up to which surfaces are followed, ms: that of the reference point of all these runs together."""
    return max(reference_latency(table) for table in tables)


def hypervolumes(tables: Sequence[pa.Table]) -> list[float]:
    """Hypervolume of each front, accuracy x ms, up to robust accuracy 0 and `end`."""
    reference = np.array([0.0, end(tables)])
    return [hypervolume(objectives(table.filter(table["on_front"])), reference) for table in tables]


def surfaces(tables: Sequence[pa.Table]) -> dict[str, NDArray[np.float64]]:
    """Corners `[k, 2]` (latency in ms, robust accuracy) of each of `SURFACES`; one may be empty."""
    fronts = [objectives(table.filter(table["on_front"])) for table in tables]
    sets = np.repeat(np.arange(len(fronts)), [len(front) for front in fronts])
    found = moocore.eaf(np.concatenate(fronts), sets, percentiles=list(SURFACES.values()))
    last = end(tables)
    return {
        name: corners(sorted((time, -loss) for loss, time, level in found if level == percentile), last)
        for name, percentile in SURFACES.items()
    }


def caption(runs: Sequence[Run], tables: Sequence[pa.Table]) -> str:
    """Which runs, on which terms, and what is drawn."""

    def shared(column: str) -> list[object]:
        return sorted({value for table in tables for value in table[column].to_pylist() if value is not None})

    radius = [f"l∞ radius {length(value)}" for value in shared("epsilon") if isinstance(value, float)]
    devices = shared("device")
    terms = [*shared("dataset"), *shared("split"), *radius, *(f"protocol {name}" for name in shared("protocol"))]
    volumes = [f"{run.name} {volume:.4g}" for run, volume in zip(runs, hypervolumes(tables), strict=True)]
    sentences = [
        f"{len(runs)} runs",
        ", ".join(map(str, terms)),
        f"Hypervolume (accuracy × ms) {', '.join(volumes)}; median {np.median(hypervolumes(tables)):.4g}; reference "
        f"point robust accuracy 0 and {end(tables):.4g} ms, {SLACK:g} × the slowest point",
        "Lines: what is attained by any of the runs, by half of them, and by all (empirical attainment function)",
        f"Timed on {' and '.join(map(str, devices))}" if devices else "",
    ]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def draw(fronts: Mapping[str, pa.Table], caption: str) -> Figure:
    """The surfaces over the fronts of runs: name to `front_table`, at least two."""
    tables = list(fronts.values())
    found = surfaces(tables)
    rows = [row for table in tables for row in front_rows(table)]
    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=style.SIZE)
        FigureCanvasAgg(figure)
        draw_caption(figure, caption)
        axes = figure.add_subplot()
        scale(axes, [row["latency_p50"] for row in rows], [row["robust"] for row in rows])
        right = axes.get_xlim()[1]
        looks = {"best": (":", 1.2), "median": ("-", 2.0), "worst": ("--", 1.2)}
        lines = []
        for name, line in found.items():
            if len(line):
                line[-1, 0] = right
                dashes, width = looks[name]
                lines += axes.plot(
                    line[:, 0], 100 * line[:, 1], dashes, color=style.INK, linewidth=width, label=name, zorder=3
                )
        points = []
        for index, (name, table) in enumerate(fronts.items()):
            front = front_rows(table)
            points += axes.plot(
                [row["latency_p50"] for row in front],
                [100 * row["robust"] for row in front],
                linestyle="none",
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=4.5,
                markeredgecolor=style.INK,
                markeredgewidth=0.5,
                color=style.OKABE_ITO[index % len(style.OKABE_ITO)],
                label=name,
                zorder=4,
            )
        figure.legend(handles=lines, loc="outside upper left", ncols=len(lines), columnspacing=1)
        figure.legend(handles=points, loc="outside right center", handletextpad=0.2)
    return figure


_MARKERS = ("o", "s", "^", "v", "D", "P", "X")
"""Seven, against eight colours: fifty-six runs that look different."""
