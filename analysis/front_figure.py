"""The Pareto front of a run, drawn for paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as Line
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from . import style
from .front import staircase
from .front_text import KINDS, Row, has_bars, is_drawn, kind, point_label
from .paper import draw_caption, tick_log


def draw(
    points: pa.Table, caption: str, colours: style.Colours | None, size: tuple[float, float] = style.SIZE
) -> Figure:
    """Robust accuracy in % against latency in ms, of a `front_table`; `size` in inches."""
    rows: list[Row] = points.to_pylist()
    shades = colours.points if colours else [style.FRONT if row["on_front"] else style.MUTED for row in rows]
    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        draw_caption(figure, caption)
        axes = figure.add_subplot()
        _scale(axes, rows)
        _draw_staircase(axes, points)
        _draw_points(axes, rows, shades, coloured=colours is not None)
        _draw_legend(figure, rows, coloured=colours is not None)
        if colours:
            _draw_key(figure, axes, colours)
        figure.draw_without_rendering()  # settles the layout, so that labels know their neighbours
        _label_front(figure, axes, rows)
    return figure


def _scale(axes: Axes, rows: Sequence[Row]) -> None:
    """Axes that hold every point, interval and whisker that is drawn."""
    times = [row["latency_p50"] for row in rows]
    times += [row["latency_p95"] for row in rows if has_bars(row) and row["latency_p95"] is not None]
    ends = [row[name] if row[name] is not None else row["robust"] for row in rows for name in _ENDS]
    scale(axes, times, ends)


_ENDS = ("robust_low", "robust", "robust_high")


def scale(axes: Axes, times: Sequence[float], accuracies: Sequence[float]) -> None:
    """Axes of latency in ms and robust accuracy in % that hold these, with a margin."""
    fastest, slowest = min(times), max(times)
    if slowest > style.LOG_ABOVE * fastest:
        axes.set_xscale("log")
        tick_log(axes.xaxis)
        margin = (slowest / fastest) ** 0.08
        axes.set_xlim(fastest / margin, slowest * margin)
    else:
        margin = 0.08 * (slowest - fastest) or 0.1 * slowest
        axes.set_xlim(max(0, fastest - margin), slowest + margin)
    low, high = 100 * min(accuracies), 100 * max(accuracies)
    margin = 0.08 * (high - low) or 5
    axes.set_ylim(max(-1, low - margin), min(101, high + margin))
    axes.set_xlabel("latency p50 at batch 1 (ms)")
    axes.set_ylabel("robust accuracy (%)")


def _draw_staircase(axes: Axes, points: pa.Table) -> None:
    """The attained accuracy; drawn on to the edge, since more time never takes it away."""
    corners = staircase(points)
    if len(corners):
        corners[-1, 0] = axes.get_xlim()[1]
        latency, accuracy = corners[:, 0], 100 * corners[:, 1]
        axes.fill_between(latency, accuracy, color=style.FRONT, alpha=0.06, linewidth=0, zorder=1)
        axes.plot(latency, accuracy, color=style.FRONT, linewidth=1.2, zorder=2)


def _draw_points(axes: Axes, rows: Sequence[Row], shades: Sequence[str], *, coloured: bool) -> None:
    series: dict[tuple[tuple[str, Any], ...], list[Row]] = {}
    for row, shade in zip(rows, shades, strict=True):
        if has_bars(row):
            _draw_bars(axes, row)
        if is_drawn(row):
            look = _marker(row, shade, coloured=coloured) if row["role"] == "search" else _BASELINE
            series.setdefault(tuple(look.items()), []).append(row)
    for items, alike in series.items():
        axes.plot([row["latency_p50"] for row in alike], [100 * row["robust"] for row in alike], **dict(items))


_BASELINE: dict[str, Any] = {
    "linestyle": "none",
    "marker": "D",
    "markersize": 6,
    "color": style.INK,
    "markeredgecolor": "white",
    "zorder": 6,
}


def _marker(row: Row, shade: str, *, coloured: bool) -> dict[str, Any]:
    """Large on the front, small below it, smaller before a trial's last rung; a cross if masked."""
    size = 6.5 if row["on_front"] else 4.5 if row["final"] else 3
    look: dict[str, Any] = {
        "linestyle": "none",
        "marker": "o",
        "markersize": size,
        "zorder": 5 if row["on_front"] else 3,
    }
    if row["masked"]:
        cross = {"marker": "x", "color": shade, "mew": 2 if row["on_front"] else 1.2}
        return look | cross | {"zorder": look["zorder"] + 0.5, "path_effects": _HALO}
    if not coloured:
        return look | {"color": shade, "markeredgecolor": "white", "mew": 0.7}
    rim = {"markeredgecolor": style.INK, "mew": 0.7} if row["on_front"] else {"markeredgecolor": style.BARS, "mew": 0.3}
    return look | {"color": shade} | rim  # the bright end of the scale is hard to see on white without


_HALO = (withStroke(linewidth=4, foreground="white"),)
"""A white rim, so that the mark of a masked point shows above any other."""


def _draw_bars(axes: Axes, row: Row) -> None:
    """Interval of robust accuracy upright, latency from p50 to p95 to the right with a cap."""
    latency, robust, slow = row["latency_p50"], 100 * row["robust"], row["latency_p95"]
    line: dict[str, Any] = {"color": style.BARS, "linewidth": 0.9, "zorder": 4}
    if row["robust_low"] is not None and row["robust_high"] is not None:
        axes.vlines(latency, 100 * row["robust_low"], 100 * row["robust_high"], **line)
    if slow is not None:
        axes.hlines(robust, latency, slow, **line)
        axes.plot(slow, robust, marker="|", markersize=5, color=style.BARS, mew=0.9, zorder=4)


def _draw_legend(figure: Figure, rows: Sequence[Row], *, coloured: bool) -> None:
    """Only what is in the picture, above it, where it can hide no point."""
    shown: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["role"] != "search":
            shown[kind(row)] = _BASELINE
            continue
        shade = style.MUTED if not row["on_front"] else style.INK if coloured else style.FRONT
        if kind(row) not in shown or row["on_front"]:
            shown[kind(row)] = _marker(row, shade, coloured=coloured)
    if coloured and KINDS[0] in shown:
        shown[KINDS[0]] |= {"color": "white"}
    order = [name for name in KINDS if name in shown] + [name for name in shown if name not in KINDS]
    handles = [Line2D([], [], label=name, **shown[name]) for name in order]
    columns = len(handles) if figure.get_figwidth() >= style.SIZE[0] else 2
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, columnspacing=1, handletextpad=0.2)


def _draw_key(figure: Figure, axes: Axes, colours: style.Colours) -> None:
    if colours.norm:
        bar = figure.colorbar(ScalarMappable(colours.norm, style.SEQUENTIAL), ax=axes, pad=0.02, aspect=30)
        bar.set_label(colours.field)
        if isinstance(colours.norm, LogNorm):
            tick_log(bar.ax.yaxis)
        bar.outline.set_visible(False)
    if colours.names:
        dots = [
            Line2D([], [], linestyle="none", marker="o", color=colour, label=name)
            for name, colour in colours.names.items()
        ]
        title = "" if colours.norm else colours.field
        figure.legend(handles=dots, loc="outside right center", title=title, alignment="left")


_NEAR = ((-4, 3, "right"), (-4, 12, "right"), (5, -11, "left"), (5, 4, "left"), (-4, -11, "right"))
_FAR = tuple((x, y, "left") for y in (-24, -36, -50, 14, -64, -78) for x in (8, 30, 60, 90, 120)) + tuple(
    (-x, y, "right") for y in (22, -24, -36) for x in (8, 30)
)
"""Places of a name, in points from its point, and its end that is nearer."""


def _label_front(figure: Figure, axes: Axes, rows: Sequence[Row]) -> None:
    """Names beside the points of the front: where they cover nothing, else over bars only, else farther off with a line
    to the point, else left out.

    Above and left of a front point lies nothing but its neighbours' names and bars; so that place is first.
    """
    inside = axes.get_window_extent()
    names: list[Bbox] = []
    lines: list[Line] = []
    for row in (row for row in rows if row["on_front"]):
        others = [other for other in rows if other is not row]
        markers = [_marker_box(axes, other) for other in others] + names
        bars = [box for other in others for box in _bar_boxes(axes, other)]
        drawn = [*lines, *_rims(names)]
        choices = [(places, taken, True) for places in (_NEAR, _FAR) for taken in (markers + bars, markers)]
        choices.append((_FAR, markers, False))  # lines that cross something are better than no name
        for taken, tidy, (x, y, side) in ((taken, tidy, place) for places, taken, tidy in choices for place in places):
            far = (x, y, side) in _FAR
            label = axes.annotate(
                point_label(row),
                (row["latency_p50"], 100 * row["robust"]),
                (x, y),
                textcoords="offset points",
                ha=side,
                fontsize=8,
                zorder=7,
                bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
                arrowprops={"arrowstyle": "-", "linewidth": 0.6, "shrinkB": 3} if far else None,
            )
            label.update_positions(figure.canvas.get_renderer())  # type: ignore[attr-defined]
            box = Text.get_window_extent(label)  # without the line
            line = [Line(np.array([axes.transData.transform(label.xy), _middle(box)]))] if far else []
            clear = not tidy or not any(one.intersects_path(other) for one in (*line, *_rims([box])) for other in drawn)
            if clear and not box.count_overlaps(taken) and inside.contains(*box.min) and inside.contains(*box.max):
                names.append(box)
                lines += line
                break
            label.remove()


def _middle(box: Bbox) -> tuple[float, float]:
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2


def _rims(boxes: Sequence[Bbox]) -> list[Line]:
    return [Line(box.corners()[[0, 1, 3, 2, 0]]) for box in boxes]


def _marker_box(axes: Axes, row: Row) -> Bbox:
    """What a marker covers, in pixels; on the front with some air, so that a name stands by its own point."""
    return _box(axes, (row["latency_p50"],) * 2, (row["robust"],) * 2, air=6 if row["on_front"] else 3)


def _bar_boxes(axes: Axes, row: Row) -> list[Bbox]:
    """What the interval and the whisker cover, in pixels."""
    if not has_bars(row):
        return []
    latency, robust = row["latency_p50"], row["robust"]
    interval = (row["robust_low"] or robust, row["robust_high"] or robust)
    whisker = (latency, row["latency_p95"] or latency)
    return [_box(axes, (latency, latency), interval, air=1), _box(axes, whisker, (robust, robust), air=1)]


def _box(axes: Axes, across: tuple[float, float], upright: tuple[float, float], air: float) -> Bbox:
    """Box in pixels around a range of latencies in ms and of accuracies, with air in points."""
    corners = axes.transData.transform([(time, 100 * share) for time, share in zip(across, upright, strict=True)])
    margin = air * axes.figure.dpi / 72
    return Bbox([corners[0] - margin, corners[1] + margin])
