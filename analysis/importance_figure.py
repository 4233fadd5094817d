"""What moves the objectives, drawn for paper: shares with intervals, slices, parallel coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from . import style
from .fields import Field
from .importance_numbers import Values, groups
from .paper import draw_caption, tick_log

NAMES = {"robust": "robust accuracy (%)", "latency_p50": "latency p50 (ms)"}
"""Objective to the words on its axis."""

SCALES = {"robust": 100.0, "latency_p50": 1.0}
"""Objective to what multiplies it on its axis."""


def draw_shares(shares: pa.Table, fields: Sequence[Field], caption: str) -> Figure:
    """Share of each objective's variance that each of these fields explains, with its interval and the noise level."""
    with matplotlib.rc_context(style.RC):
        figure = _figure(1.6 + 0.21 * len(fields), caption)
        panels = figure.subplots(1, len(NAMES), sharey=True, squeeze=False)[0]
        for axes, (objective, name) in zip(panels, NAMES.items(), strict=True):
            rows = {row["field"]: row for row in shares.to_pylist() if row["objective"] == objective}
            noise = 100 * next(iter(rows.values()))["noise"]
            for place, field in enumerate(fields):
                row = rows[field.name]
                colour = style.FRONT if row["explained"] > row["noise"] else style.MUTED
                axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=colour, linewidth=1.2)
                axes.plot(100 * row["explained"], place, "o", color=colour, markersize=4.5)
            axes.axvline(noise, color=style.BARS, linewidth=0.9, linestyle="--")
            axes.set_title(f"of {name.partition(' (')[0]}", fontsize=9, loc="left")
            right = axes.get_xlim()[1]
            axes.set_xlim(-0.025 * right, right)  # a dot at 0 is whole
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.set_xlabel("explained variance (%)")
        panels[0].set_yticks(range(len(fields)), [field.label for field in fields])
        panels[0].set_ylim(len(fields) - 0.5, -0.5)
    return figure


def draw_slices(fields: Sequence[Field], values: dict[str, Values], caption: str) -> Figure:
    """Each objective over the parts of each field: every trial, and the median with its interval."""
    rng = np.random.default_rng(0)
    with matplotlib.rc_context(style.RC):
        figure = _figure(1.2 + 1.35 * len(fields), caption)
        panels = figure.subplots(len(fields), len(NAMES), sharex="row", squeeze=False)
        for row, field in zip(panels, fields, strict=True):
            for axes, (objective, name) in zip(row, NAMES.items(), strict=True):
                _draw_slice(axes, field, SCALES[objective] * values[objective], rng)
                if objective == "latency_p50" and values[objective].max() > style.LOG_ABOVE * values[objective].min():
                    axes.set_yscale("log")
                    tick_log(axes.yaxis)
                axes.set_ylabel(name, fontsize=8)
                axes.set_xlabel(field.label, fontsize=8, labelpad=1)
    return figure


def _draw_slice(axes: Axes, field: Field, objective: Values, rng: np.random.Generator) -> None:
    found = groups(field, objective)
    if field.levels is None:
        at = np.array([np.nan if value is None else value for value in field.values], dtype=float)
        known = at[np.isfinite(at)]
        low, high = float(known.min()), float(known.max())
        if field.log:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        aside = low / (high / low) ** 0.2 if field.log else low - 0.2 * (high - low)
        locator = LogLocator(subs=(1, 2, 5)) if field.log else MaxNLocator(5)
        ticks = {float(tick): f"{tick:g}" for tick in locator.tick_values(low, high) if low <= tick <= high}
        ticks |= {aside: text(None)} if field.off.any() else {}
        axes.set_xticks(list(ticks), list(ticks.values()))
        places = [aside if group.level is None else group.level for group in found]
        at[field.off] = aside
    else:
        off = int(field.off.any())
        places = list(range(len(found)))
        axes.set_xticks(places, [text(group.level) for group in found])
        place = {level: index + off for index, level in enumerate(field.levels)} | ({None: 0} if off else {})
        at = np.array([place[value] for value in field.values]) + rng.uniform(-0.15, 0.15, len(objective))
    axes.plot(at, objective, "o", color=style.MUTED, markersize=2.5, markeredgewidth=0, alpha=0.6)
    for where, group in zip(places, found, strict=True):
        if group.interval:
            axes.plot([where, where], group.interval, color=style.FRONT, linewidth=1.4)
        axes.plot(where, group.median, "o", color=style.FRONT, markersize=5, markeredgecolor="white")


def coordinate(field: Field) -> tuple[NDArray[np.float64], list[tuple[float, str]]]:
    """Height in [0, 1] of each trial on a field's axis, and the ticks of that axis; where it is off is the lowest."""
    off = bool(field.off.any())
    if field.levels is not None:
        names = ([None] if off else []) + list(field.levels)
        heights = np.linspace(0, 1, len(names))
        place = dict(zip(names, heights, strict=True))
        return np.array([place[value] for value in field.values]), [
            (float(height), text(name)) for name, height in zip(names, heights, strict=True)
        ]
    values = np.array([np.nan if value is None else value for value in field.values], dtype=float)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    scaled = np.log(values / low) / np.log(high / low) if field.log else (values - low) / (high - low)
    floor = 0.15 if off else 0.0
    heights = np.where(field.off, 0.0, floor + (1 - floor) * scaled)
    ticks = [(floor, f"{low:.3g}"), (1.0, f"{high:.3g}")]
    return heights, ([(0.0, text(None)), *ticks] if off else ticks)


def draw_parallel(fields: Sequence[Field], values: dict[str, Values], front: NDArray[np.bool_], caption: str) -> Figure:
    """Each trial as a line over the axes of fields and objectives; the front is coloured by rank of robust accuracy."""
    axes_of = [(field.label, *coordinate(field)) for field in fields]
    for objective, name in NAMES.items():
        measured = Field(name, tuple(SCALES[objective] * values[objective]), None, log=objective == "latency_p50")
        axes_of.append((name, *coordinate(measured)))
    heights = np.array([height for _, height, _ in axes_of])
    shade = colormaps[style.SEQUENTIAL]
    best = np.unique(values["robust"][front])
    with matplotlib.rc_context(style.RC):
        figure = _figure(4.2, caption)
        axes = figure.add_subplot()
        rng = np.random.default_rng(0)
        jitter = np.array([0.0 if field.levels is None else 0.02 for field in fields] + [0.0] * len(NAMES))
        heights = heights + rng.uniform(-1, 1, heights.shape) * jitter[:, None]
        x = range(len(axes_of))
        for trial in np.flatnonzero(~front):
            axes.plot(x, heights[:, trial], color=style.MUTED, linewidth=0.5, alpha=0.35, zorder=1)
        for trial in np.flatnonzero(front):
            rank = np.searchsorted(best, values["robust"][trial]) / max(1, len(best) - 1)
            axes.plot(x, heights[:, trial], color=shade(rank), linewidth=1.6, zorder=2)
        for place, (_, _, ticks) in zip(x, axes_of, strict=True):
            axes.axvline(place, color=style.INK, linewidth=0.8, zorder=3)
            for height, label in ticks:
                axes.annotate(
                    label,
                    (place, height),
                    (3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                    zorder=4,
                    bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.5},
                )
        axes.set_xticks(x, [label for label, _, _ in axes_of], rotation=25, ha="right")
        axes.set_yticks([])
        axes.set_xlim(-0.1, len(axes_of) - 0.5)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(length=0)
        axes.grid(visible=False)
    return figure


def text(level: Any) -> str:
    """A level on an axis."""
    if level is None:
        return "off"
    if isinstance(level, bool):
        return "yes" if level else "no"
    return f"{level:.3g}" if isinstance(level, float) else str(level)


def _figure(height: float, caption: str) -> Figure:
    """A figure of the paper's width, with its caption; `height` in inches is without it."""
    lines = len(caption) // 100 + 1
    figure = Figure(figsize=(style.SIZE[0], height + 0.15 * lines))
    FigureCanvasAgg(figure)
    draw_caption(figure, caption)
    return figure
