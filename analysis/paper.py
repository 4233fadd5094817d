"""What figures for paper share: the caption below, plain numbers on logarithmic axes, and three files."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from . import style


def draw_caption(figure: Figure, caption: str) -> None:
    """Write a caption below all else, in the room that its lines need; `figure` is as wide as `style.SIZE`.

    An empty one takes no room: a page says it beside the figure.
    """
    if not caption:
        figure.set_layout_engine("constrained")
        return
    width = 108  # characters of 8 pt in `SIZE`
    text = figure.text(
        0.012,
        0.012,
        textwrap.fill(caption, width),
        fontsize=8,
        color=style.BARS,
        va="bottom",
        linespacing=1.3,
    )
    text.set_in_layout(False)
    height = text.get_window_extent().height / figure.bbox.height + 0.03
    figure.set_layout_engine("constrained", rect=(0, height, 1, 0.985 - height))


def tick_log(axis: Axis) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def save(figure: Figure, folder: Path, stem: str, title: str, caption: str) -> list[Path]:
    """Write `STEM.png`, `.svg` and `.pdf`; each carries its title and caption as metadata, and no date."""
    metadata = {
        "png": {"Title": title, "Description": caption},
        "svg": {"Title": title, "Description": caption, "Date": None},
        "pdf": {"Title": title, "Subject": caption, "CreationDate": None},
    }
    paths = []
    with matplotlib.rc_context(style.RC):
        for suffix, fields in metadata.items():
            paths.append(folder / f"{stem}.{suffix}")
            figure.savefig(paths[-1], metadata=fields)
    return paths
