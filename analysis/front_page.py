"""The Pareto front of a run as one interactive page: a single HTML file that asks nothing of any network.

Hover over a point for its numbers and settings; click it, or its button in the table, to copy the command that
evaluates or ablates its trial, or its recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.colors import LogNorm

from robustsearch.results import RECIPE_COLUMNS

from . import style
from .front import front_rows, staircase
from .front_figure import draw
from .front_text import KINDS, Row, count, has_bars, interval, kind, masking, milliseconds, percent, probability
from .load import Run
from .page import COPIES, PLOT, copy_button, definitions, document, table
from .report_figure import image


def page(run: Run, points: pa.Table, caption: str, colours: style.Colours | None) -> str:
    """The whole page, of a `front_table`."""
    versions = [f"{name} {version}" for name, version in dict(run.info.get("versions") or {}).items()]
    title = f"Pareto front of {run.name}"
    origin = (
        f"Made from <code>{escape(str(run.info.get('command') or 'not recorded'))}</code>, started "
        f"{escape(str(run.info.get('created') or 'not recorded'))}, with "
        f"{escape(', '.join(versions) or 'not recorded')}."
    )
    body = f"""<main>
<h1>{escape(title)}</h1>
{front(points, caption, colours)}
<details><summary>Settings that all points of the search share</summary>
{definitions(shared_settings(points).items())}</details>
</main>
<footer><p>{origin}</p></footer>"""
    return document(run, title, body, recipes=recipes(points), plot=figure(points, colours))


def front(points: pa.Table, caption: str, colours: style.Colours | None) -> str:
    """The HTML of a front: where its plot goes, with a picture of it, its caption, and its table."""
    rows = [table_row(row) for row in front_rows(points)]
    drawn = image(draw(points, "", colours), "Robust accuracy against latency", dense=points.num_rows > DENSE)
    return f"""<p>Up and to the left is better. Hover over a point for its numbers and settings.</p>
{COPIES}<figure aria-label="Robust accuracy against latency; the front is also in the table below">
{PLOT.format(picture=drawn)}<figcaption>{escape(caption)}</figcaption>
</figure>
{table("The front, fastest first", HEADS, rows, name="front-table") if rows else EMPTY}"""


def recipes(points: pa.Table) -> dict[str, str]:
    """The recipe of each trial of a `front_table`, as JSON."""
    return {row["trial"]: row["recipe"] or "" for row in points.select(["trial", "recipe"]).to_pylist()}


DENSE = 200
"""More points than these make a smaller picture of pixels than of lines."""

EMPTY = "<p><strong>No point of the search was measured.</strong></p>"


def figure(points: pa.Table, colours: style.Colours | None) -> Any:
    """The plot, a Plotly figure: the staircase and one trace for each kind of point."""
    from plotly.graph_objects import Figure, Scatter

    rows: list[Row] = points.to_pylist()
    shades = colours.points if colours else [style.FRONT if row["on_front"] else style.MUTED for row in rows]
    shared = shared_settings(points)
    groups: dict[str, list[tuple[Row, str]]] = {name: [] for name in KINDS}
    for row, shade in zip(rows, shades, strict=True):
        if row["role"] == "search" or row["final"]:
            groups.setdefault(kind(row), []).append((row, shade))
    corners = staircase(points)
    stairs = {
        "x": corners[:, 0].tolist(),
        "y": (100 * corners[:, 1]).tolist(),
        "line": {"color": style.FRONT},
    }
    plot = Figure(Scatter(**stairs, mode="lines", hoverinfo="skip", showlegend=False))
    baseline = [name for name in groups if name not in KINDS]
    for name in [*KINDS[1:3], *baseline, KINDS[0], KINDS[3]]:  # later is on top; nothing may hide a masked point
        if groups[name]:
            plot.add_trace(Scatter(**_trace(name, groups[name], shared)))
            entry = _legend_entry(name, colours)
            plot.add_trace(Scatter(x=[None], y=[None], mode="markers", **entry))
    for key in _key(colours) if colours else []:
        plot.add_trace(Scatter(x=[None], y=[None], mode="markers", **key))
    axis = {
        "gridcolor": "#e6e6e6",
        "zeroline": False,
        "showline": True,
        "linecolor": style.INK,
        "ticks": "outside",
    }
    times = points["latency_p50"].to_numpy()
    wide = times.max() > style.LOG_ABOVE * times.min()
    plot.update_layout(
        template="none",
        font={"family": "system-ui, sans-serif", "size": 13, "color": style.INK},
        hoverlabel={"align": "left", "bgcolor": "white", "font": {"size": 12}},
        hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        margin={"l": 56, "r": 16, "t": 24, "b": 52},
        xaxis={
            "title": {"text": "latency p50 at batch 1 (ms)"},
            **(_log_axis(times) if wide else {}),
            **axis,
        },
        yaxis={"title": {"text": "robust accuracy (%)"}, **axis},
    )
    return plot


def shared_settings(points: pa.Table) -> dict[str, str]:
    """Settings with one value in every point of the search; parts that are off everywhere are left out."""
    searched = points.filter(pa.compute.equal(points["role"], "search"))
    values = {name: set(searched[name].to_pylist()) for name in RECIPE_COLUMNS}
    return {name: _text(*found) for name, found in values.items() if len(found) == 1 and found != {None}}


def hover(row: Row, shared: Iterable[str]) -> str:
    """What is shown over a point: its numbers, then its own settings that are on, one a line."""
    lines = [
        f"<b>{escape(row['trial'])}</b>, epoch {row['epoch']}",
        f"robust {interval(row)} % over {row['seeds']} seed{'s' if row['seeds'] > 1 else ''}, "
        f"on the front with probability {probability(row)}",
        f"natural {percent(row['natural'])}, PGD {percent(row['pgd'])}, "
        f"FGSM {percent(row['fgsm'])}, CW {percent(row['cw'])} %",
        f"latency p50 {milliseconds(row['latency_p50'])}, p95 {milliseconds(row['latency_p95'])} ms",
        f"{count(row['parameters'])} parameters, {count(row['macs'])} multiply-accumulates",
        f"masking checks: {masking(row)}",
        "",
    ]
    own = [name for name in RECIPE_COLUMNS if row[name] is not None and name not in shared]
    return "<br>".join(lines + [escape(f"{name} = {_text(row[name])}") for name in own])


def _look(name: str) -> dict[str, Any]:
    """Marker of a kind of point: large on the front, small below it, smaller before a trial's last epoch."""
    if name not in KINDS:
        return {"symbol": "diamond", "size": 11, "color": style.INK}
    size = dict(zip(KINDS, (11, 8, 5, 10), strict=True))[name]
    if name == KINDS[3]:
        return {"symbol": "x-thin", "size": size, "line": {"width": 2.5, "color": style.FRONT}}
    colour = style.FRONT if name == KINDS[0] else style.MUTED
    return {"symbol": "circle", "size": size, "color": colour, "line": {"width": 1, "color": "white"}}


def _legend_entry(name: str, colours: style.Colours | None) -> dict[str, Any]:
    """Arguments of a trace without points that stands for one kind; grey where colour has a meaning."""
    marker = _look(name)
    if colours and name in KINDS:
        marker |= {"color": style.MUTED, "line": {"width": 1.5, "color": style.BARS}}
    rank = KINDS.index(name) if name in KINDS else len(KINDS)
    return {"name": escape(name), "legendgroup": name, "legendrank": rank, "marker": marker}


def _trace(name: str, group: Sequence[tuple[Row, str]], shared: Iterable[str]) -> dict[str, Any]:
    """Arguments of the scatter trace of one kind of point."""
    rows, shades = [row for row, _ in group], [shade for _, shade in group]
    marker = _look(name)
    if name == KINDS[3]:
        marker["line"] |= {"color": shades}
    elif name in KINDS:
        marker |= {"color": shades}
    return {
        "name": escape(name),
        "legendgroup": name,
        "showlegend": False,
        "mode": "markers",
        "x": [row["latency_p50"] for row in rows],
        "y": [100 * row["robust"] for row in rows],
        "error_x": _bars([_reach(row, "latency_p50", "latency_p95") for row in rows], [0.0] * len(rows)),
        "error_y": _bars(
            [100 * _reach(row, "robust", "robust_high") for row in rows],
            [100 * _reach(row, "robust_low", "robust") for row in rows],
        ),
        "marker": marker,
        "customdata": [[row["trial"], row["epoch"]] for row in rows],
        "hovertext": [hover(row, shared) for row in rows],
        "hoverinfo": "text",
    }


def _bars(up: list[float], down: list[float]) -> dict[str, Any]:
    look = {"type": "data", "symmetric": False, "thickness": 1, "width": 4, "color": style.BARS}
    return look | {"array": up, "arrayminus": down, "visible": any(up) or any(down)}


def _reach(row: Row, low: str, high: str) -> float:
    """Length of a bar; 0 where the row has none, or none is drawn."""
    ends = row[low], row[high]
    return float(ends[1] - ends[0]) if has_bars(row) and None not in ends else 0.0


def _key(colours: style.Colours) -> list[dict[str, Any]]:
    """Traces without points that say what the colours mean: a legend entry for each name, or a colour bar."""
    group = {"legendgroup": colours.field, "legendgrouptitle": {"text": escape(colours.field)}}
    names = colours.names.items()
    key: list[dict[str, Any]] = [
        {"name": escape(name), "marker": {"color": colour, "size": 9}, **group} for name, colour in names
    ]
    if colours.norm:
        low, high = float(colours.norm.vmin or 0), float(colours.norm.vmax or 0)
        bar: dict[str, Any] = {"title": {"text": escape(colours.field), "side": "right"}, "thickness": 12}
        if isinstance(colours.norm, LogNorm):
            ticks = _log_ticks(low, high)
            bar |= {"tickvals": np.log10(ticks).tolist(), "ticktext": [f"{tick:g}" for tick in ticks]}
            low, high = np.log10(low), np.log10(high)
        scale: dict[str, Any] = {
            "colorscale": style.SEQUENTIAL,
            "cmin": low,
            "cmax": high,
            "color": [low],
            "showscale": True,
        }
        key.append({"marker": scale | {"colorbar": bar}, "showlegend": False})
    return key


def _log_axis(times: np.ndarray[Any, Any]) -> dict[str, Any]:
    ticks = _log_ticks(times.min() / 2, times.max() * 2)
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between two positive numbers."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    return [tick for tick in ticks if low <= tick <= high]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


HEADS = (
    *("trial", "epoch", "p50 (ms)", "p95 (ms)", "robust [95%] (%)", "seeds", "P(front)"),
    *("natural (%)", "PGD (%)", "FGSM (%)", "CW (%)", "parameters", "masking checks", ""),
)


def table_row(row: Row) -> list[str]:
    """A point as the cells of a table with `HEADS`."""
    cells = [
        row["trial"],
        str(row["epoch"]),
        milliseconds(row["latency_p50"]),
        milliseconds(row["latency_p95"]),
        interval(row),
        str(row["seeds"]),
        probability(row),
        *(percent(row[name]) for name in ("natural", "pgd", "fgsm", "cw")),
        count(row["parameters"]),
        masking(row),
    ]
    return [*map(escape, cells), copy_button(row["trial"], row["epoch"])]
