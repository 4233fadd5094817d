"""The figures that only a report has, small enough for a narrow page: what was attained at what cost, and learning."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from robustsearch.pareto import SPAN

from . import style
from .front_text import Row
from .report_numbers import Step
from .traces import Trace

NARROW = (4.4, 3.1)
"""Inches, of a figure that a telephone shows whole: its text is still 7 pt there."""

CURVES = len(style.LINES)
"""Trials whose learning is drawn, at most: as many as there are colours."""


def draw_history(steps: Sequence[Step]) -> Figure:
    """What was attained, in %, against the time of all trials together."""
    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=NARROW, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        unit, name = (3600.0, "hours") if steps[-1].seconds > 7200 else (60.0, "minutes")
        times = [step.seconds / unit for step in steps]
        axes.step(times, [100 * step.attained for step in steps], where="post", color=style.FRONT, linewidth=1.4)
        axes.plot(times[-1], 100 * steps[-1].attained, "o", color=style.FRONT, markersize=4.5)
        axes.set_xlim(0, None)
        axes.set_ylim(0, None)
        axes.set_xlabel(f"time of all trials together ({name})")
        axes.set_ylabel(f"attained within 1 to {SPAN:g} × plain latency (%)")
    return figure


def draw_curves(rows: Mapping[str, Sequence[Row]], traces: Mapping[str, Trace]) -> Figure:
    """The learning of some trials: the objective after each epoch, and the accuracies at the rungs.

    Args:
        rows: trial to its measured rows, by epoch; at most `CURVES` trials.
        traces: trial to its log.
    """
    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=(NARROW[0], 1.6 * NARROW[1]), layout="constrained")
        FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 1, sharex=True)
        lines = []
        for (trial, found), colour in zip(rows.items(), style.LINES, strict=False):
            epochs = [row["epoch"] for row in found]
            loss = traces[trial].loss
            above.plot([epoch for epoch, _ in loss], [value for _, value in loss], color=colour, linewidth=1.2)
            for name, dashes in _KINDS.items():
                shares = [float("nan") if row[name] is None else 100 * row[name] for row in found]
                below.plot(epochs, shares, dashes, marker="o", markersize=3.5, color=colour, linewidth=1.2)
            lines.append(Line2D([], [], color=colour, label=trial))
        above.set_ylabel("training objective (nats)")
        below.set_ylabel("accuracy (%)")
        below.set_xlabel("epoch")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        for name, dashes in _KINDS.items():
            below.plot([], [], dashes, color=style.INK, label=name)
        below.legend(loc="best")
        figure.legend(handles=lines, loc="outside upper left", ncols=4, columnspacing=1, handlelength=1.2)
    return figure


_KINDS = {"natural": ":", "robust": "-"}


def image(figure: Figure, words: str, *, dense: bool = False) -> str:
    """A figure as an HTML image that holds it whole; `words` say what it shows to those who do not see it.

    Lines and letters are SVG; a figure of thousands of marks (`dense`) is smaller, and shown sooner, as pixels.
    """
    with matplotlib.rc_context(style.RC):
        file = io.BytesIO()
        if dense:
            figure.savefig(file, format="png")
        else:
            figure.savefig(file, format="svg", metadata={"Date": None})
    kind = "png" if dense else "svg+xml"
    width, height = (round(96 * side) for side in figure.get_size_inches())
    return embedded(file.getvalue(), kind, f'width="{width}" height="{height}" alt="{escape(words)}"')


def embedded(content: bytes, kind: str, attributes: str) -> str:
    """An HTML image whose content it holds itself."""
    return f'<img src="data:image/{kind};base64,{base64.b64encode(content).decode()}" {attributes}>'
