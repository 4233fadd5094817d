"""Main effects and two-factor interactions of a factorial design, by ordinary least squares (statsmodels)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UserError
from .statistics import LEVEL, Array, binomial, combine


@dataclass(frozen=True)
class Term:
    """One effect: the mean where the term is high minus the mean where it is low (Box, Hunter & Hunter 2005)."""

    name: str
    """A factor, or `A:B`: half of what A changes where B is high, less half of what it changes where B is low."""
    aliases: tuple[str, ...]
    """Terms that the design cannot tell from this one; `-A:B` has the opposite sign. A full factorial has none."""
    effect: float
    low: float
    high: float
    p: float
    """Of this term alone: `statistics.adjusted` corrects for their number."""


def terms(
    values: ArrayLike, signs: Mapping[str, Sequence[int]], *, images: int | None = None, level: float = LEVEL
) -> list[Term]:
    """Every main effect and two-factor interaction, each seed a block of its own.

    Args:
        values: of one objective, `[R, S]`: row by seed; NaN where a trial failed.
        signs: factor to -1 or 1 for each row, as `designs.coded` gives them.
        images: images behind each accuracy, whose part of the variance is added as in `statistics.paired`; None for
            what has none.
        level: of the intervals.

    Raises:
        UserError: there are no degrees of freedom left to estimate an error from.
    """
    from statsmodels.regression.linear_model import OLS  # its import takes a second, and few tables need it

    array = np.asarray(values, dtype=float)
    rows, seeds = array.shape
    columns, aliases = _columns({name: np.asarray(sign, dtype=float) for name, sign in signs.items()})
    names = list(columns)
    known = np.isfinite(array).ravel()
    row, seed = (index[known] for index in np.divmod(np.arange(rows * seeds), seeds))
    blocks = (seed[:, None] == np.unique(seed)).astype(float)
    model = OLS(array.ravel()[known], np.column_stack([np.column_stack(list(columns.values()))[row], blocks]))
    fit = model.fit()
    if fit.df_resid < 1:
        raise UserError(
            f"effects need more trials than terms and seeds, but got {known.sum()} trials for {len(names)} terms and "
            f"{blocks.shape[1]} seeds"
        )
    # An effect is a weighted sum of trials; the images move all trials of one row together.
    weights = 2 * np.asarray(model.pinv_wexog)[: len(names)]
    by_row = weights @ (row[:, None] == np.arange(rows))
    spread = np.zeros(rows) if images is None else np.nan_to_num(binomial(array, images, 1))
    found = combine(
        2 * fit.params[: len(names)],
        (2 * fit.bse[: len(names)]) ** 2,
        np.full(len(names), fit.df_resid),
        by_row**2 @ spread,
        level,
    )
    return [
        Term(
            name,
            aliases[name],
            *(float(part[index]) for part in (found.effect, found.low, found.high, found.p)),
        )
        for index, name in enumerate(names)
    ]


def _columns(signs: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, tuple[str, ...]]]:
    """Columns of the terms that can be told apart, and for each what is the same column up to its sign."""
    candidates = dict(signs) | {f"{one}:{two}": signs[one] * signs[two] for one, two in combinations(signs, 2)}
    columns: dict[str, Array] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    for name, column in candidates.items():
        for other, known in columns.items():
            if abs(product := float((column * known).mean())) == 1:
                aliases[other] += (name if product > 0 else f"-{name}",)
                break
        else:
            columns[name], aliases[name] = column, ()
    return columns, aliases
