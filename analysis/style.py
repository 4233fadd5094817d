"""How figures look: paper sizes, type sizes, and colours that the colour-blind can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from matplotlib import colormaps
from matplotlib.colors import LogNorm, Normalize, to_hex

from robustsearch.errors import UserError
from robustsearch.pareto import THIRD
from robustsearch.results import RECIPE_COLUMNS, SCHEMA

SIZE = (6.3, 4.4)
"""Inches: the text width of an A4 paper, and a README's column at 130 pixels per inch."""

LOG_ABOVE = 5
"""The latency axis is logarithmic when the slowest point takes more than this many times the fastest."""

INK = "#1a1a1a"
BARS = "#4d4d4d"
MUTED = "#9aa0a6"
FRONT = "#0072B2"

OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000")
"""Okabe & Ito (2008), Color Universal Design: eight colours that stay apart for all common colour vision."""

LINES = tuple(OKABE_ITO[place] for place in (4, 5, 2, 0, 6, 1, 7))
"""Of lines: without yellow, which is hard to see on white."""

NAMES = (*LINES, OKABE_ITO[3])
"""Of points with a name: yellow last."""

SEQUENTIAL = "viridis"
"""Perceptually uniform, readable without colour vision."""

RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"],
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "robustsearch",
    "pdf.fonttype": 42,
}
"""Text stays text in SVG and PDF; a dollar sign starts no formula; the same data give the same file."""


@dataclass(frozen=True)
class Colours:
    """One colour per point, and the key that says what they mean: names, or a scale."""

    field: str
    points: Sequence[str]
    names: dict[str, str]
    """Category to colour; for a scale only `off`, and only where the setting is off in some point."""
    norm: Normalize | None
    """The scale of a number, linear or logarithmic; None for categories."""


def colours(points: pa.Table, field: str) -> Colours:
    """Colours of the points by a field of the recipe, or one of `THIRD`: a scale for numbers, `NAMES` for names.

    Raises:
        UserError: `field` is none of these, or has no value in any point.
    """
    kinds = {name: SCHEMA.field(name).type for name in (*RECIPE_COLUMNS, *THIRD)}
    if field not in kinds:
        raise UserError(f"`--color` must be one of {', '.join(kinds)}, but got {field!r}")
    values = points[field].to_pylist()
    known = sorted({value for value in values if value is not None})
    if not known:
        raise UserError(f"`--color` must be a setting that is on in some trial, but {field!r} is off in all of them")
    kind = kinds[field]
    off = {"off": MUTED} if None in values else {}
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        spread_out = known[0] > 0 and known[-1] / known[0] >= 20
        norm = (LogNorm if spread_out else Normalize)(known[0], known[-1])
        scale = colormaps[SEQUENTIAL]
        return Colours(field, [MUTED if value is None else to_hex(scale(norm(value))) for value in values], off, norm)
    names = {str(value): colour for value, colour in zip(known, NAMES, strict=False)} | off
    return Colours(field, [names["off" if value is None else str(value)] for value in values], names, None)
