"""Effects of a design beyond its rows: on the front's hypervolume, and the terms of a factorial."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustsearch.ablation.factorial import terms
from robustsearch.ablation.statistics import adjusted, hypervolume_effects
from robustsearch.errors import UserError

from .table_columns import COLUMNS
from .table_numbers import Measured


@dataclass(frozen=True)
class Line:
    """One effect with its interval; shares in [0, 1], of a latency the ratio."""

    kind: str
    """`front` or `factor`."""
    name: str
    column: str
    effect: float
    low: float
    high: float
    p: float
    """Corrected for the lines of its kind and column (Holm)."""
    aliases: str = ""
    """What a fractional design cannot tell from it."""


def lines(found: Measured) -> list[Line]:
    """Every line that the seeds and the design allow."""
    return [*front_lines(found), *factor_lines(found)]


def front_lines(found: Measured) -> list[Line]:
    """What each row adds to the front of all of them, under the adaptive evaluation where there is one."""
    column = robust_column(found)
    robust, latency = found.values[column], found.values.get("latency_p50")
    if latency is None or len(found.seeds) < 2:
        return []
    base = float(np.exp(np.nanmin(np.nanmean(np.log(latency), axis=1))))
    effects = hypervolume_effects(robust, latency, base)
    numbers = np.array([effects.effect, effects.low, effects.high, adjusted(effects.p)])
    return [
        Line("front", name, column, effect, low, high, p)
        for name, (effect, low, high, p) in zip(found.rows, numbers.T.tolist(), strict=True)
    ]


def factor_lines(found: Measured) -> list[Line]:
    """Main effects and interactions of a factorial with two levels each, per column; none of another design."""
    signs = factors(found.rows)
    if not signs:
        return []
    wanted = dict.fromkeys(("natural", robust_column(found), "latency_p50"))
    made = []
    for column in (name for name in wanted if name in found.values):
        timed = COLUMNS[column].timed
        values = np.log(found.values[column]) if timed else found.values[column]
        try:
            estimated = terms(values, signs, images=found.images[column])
        except UserError:  # no degree of freedom is left for an error
            return []
        for term, p in zip(estimated, adjusted([term.p for term in estimated]).tolist(), strict=True):
            numbers = np.array([term.effect, term.low, term.high])
            effect, low, high = (np.exp(numbers) if timed else numbers).tolist()
            made.append(Line("factor", term.name, column, effect, low, high, p, " ".join(term.aliases)))
    return made


def robust_column(found: Measured) -> str:
    """The column that says how robust a row is."""
    return "adaptive" if "adaptive" in found.values else "robust"


def factors(rows: Sequence[str]) -> dict[str, list[int]]:
    """Factor to -1 (the level of the first row) or 1, from names as `designs.layout` makes them; else empty.

    A name is FACTOR.LEVEL for each factor, joined by `_`; what has no `.` belongs to the factor that follows.
    """
    parsed = [dict(re.findall(r"(?:^|_)([^.]+)\.(.+?)(?=_[^.]+\.|$)", row)) for row in rows]
    names = list(parsed[0])
    levels = {name: list(dict.fromkeys(row.get(name) for row in parsed)) for name in names}
    if len(names) < 2 or any(list(row) != names for row in parsed) or any(len(known) != 2 for known in levels.values()):
        return {}
    rebuilt = ["_".join(f"{factor}.{level}" for factor, level in row.items()) for row in parsed]
    if rebuilt != list(rows):
        return {}
    return {name: [-1 if row[name] == levels[name][0] else 1 for row in parsed] for name in names}
