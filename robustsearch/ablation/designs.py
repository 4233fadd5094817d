"""Designs of experiments over recipes: which rows an ablation runs.

    listed                  rows as they are given
    one_in                  the base, and the base with each change alone
    leave_one_out           all changes together, and all but each
    full_factorial          every combination of the factors' levels
    fractional_factorial    the part of it that tells the main effects apart, and at resolution 5 all pairs (pyDOE)

The path from one recipe to another is in `paths`.

A design is an ordered mapping of row names to recipes, no two of them equal. A change maps dotted recipe fields to
values, as `Recipe.replace` takes them: `{"training.lr": 0.03}`, `{"pni": {}}` (on, as by default), `{"pni": None}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pydoe

from ..errors import RecipeError, SpaceError
from ..recipe import Recipe

Design = dict[str, Recipe]
"""Row names to recipes, in order."""
Change = Mapping[str, Any]
"""Dotted recipe fields to their values."""
Factors = Mapping[str, Mapping[str, Change]]
"""Factor to its levels by name, each a change of the base; the first level is the low one, often `{}`."""
Layout = dict[str, dict[str, str]]
"""Row name to the level of each factor."""

BASE, ALL = "base", "all"
"""Names of the reference rows of `one_in` and `leave_one_out`."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SEEDED = re.compile(r"-s\d+$")


def listed(rows: Mapping[str, Recipe]) -> Design:
    """The rows as given, checked.

    Raises:
        SpaceError: there is no row; a name cannot name a trial's folder, or ends as a seed does (`-s1`); two rows have
            the same recipe.
    """
    if not rows:
        raise SpaceError("a design must have at least one row, but has none")
    seen: dict[str, str] = {}
    for name, recipe in rows.items():
        if not _NAME.fullmatch(name) or _SEEDED.search(name):
            raise SpaceError(
                f"the name of a row must be letters, digits, '.', '_' and '-', the first a letter or digit, and not "
                f"end in a seed (-s1), but got {name!r}"
            )
        if not isinstance(recipe, Recipe):
            raise SpaceError(f"a row of a design must be a Recipe, but {name!r} is {recipe!r}")
        if (other := seen.setdefault(recipe.digest, name)) != name:
            raise SpaceError(f"the rows of a design must differ, but {other!r} and {name!r} are the same recipe")
    return dict(rows)


def one_in(base: Recipe, changes: Mapping[str, Change]) -> Design:
    """Row `base`, then a row for each change, with that change alone.

    Raises:
        SpaceError: a change cannot be made, or changes nothing.
    """
    return listed({BASE: base} | {name: _changed(name, base, change) for name, change in changes.items()})


def leave_one_out(base: Recipe, changes: Mapping[str, Change]) -> Design:
    """Row `all`, the base with every change in their order; then a row `without-CHANGE` for each, without that one.

    Raises:
        SpaceError: a row is no recipe, or two rows are equal: a change has no effect, or others override it.
    """
    rows = {ALL: _changed(ALL, base, *changes.values())}
    for left in changes:
        name = f"without-{left}"
        rows[name] = _changed(name, base, *(change for other, change in changes.items() if other != left))
    return listed(rows)


def layout(factors: Factors, resolution: int | None = None) -> Layout:
    """The rows of a factorial design: every combination of levels, the last factor changing fastest.

    With a `resolution` (Box & Hunter 1961), a regular fraction of that one or higher, for factors of two levels:
    at 3 no main effect is the same as another, at 4 none is the same as an interaction of two factors, at 5 no two such
    interactions are the same.

    Raises:
        SpaceError: a factor has fewer than two levels, or other than two in a fraction; there is no such fraction.
    """
    for name, levels in factors.items():
        if len(levels) < 2 or (resolution is not None and len(levels) != 2):
            wanted = "two levels in a fraction" if resolution is not None else "at least two levels"
            raise SpaceError(f"a factor must have {wanted}, but {name!r} has {len(levels)}: {', '.join(levels)}")
    chosen = product(*factors.values()) if resolution is None else _fraction(factors, resolution)
    rows = [dict(zip(factors, levels, strict=True)) for levels in chosen]
    named = {"_".join(f"{factor}.{level}" for factor, level in row.items()): row for row in rows}
    if len(named) < len(rows):
        raise SpaceError("factors and levels must have names that tell the rows apart, but two rows have the same name")
    return named


def full_factorial(base: Recipe, factors: Factors) -> Design:
    """Every combination of the factors' levels, as `layout` names them; later factors are applied last.

    Raises:
        SpaceError: a factor has fewer than two levels, or a row is no recipe.
    """
    return _factorial(base, factors, layout(factors))


def fractional_factorial(base: Recipe, factors: Factors, resolution: int = 3) -> Design:
    """The rows of `layout(factors, resolution)`: 2^(k - p) of the 2^k combinations.

    Raises:
        SpaceError: a factor has other than two levels, there is no such fraction, or a row is no recipe.
    """
    return _factorial(base, factors, layout(factors, resolution))


def coded(rows: Layout, factors: Factors) -> dict[str, list[int]]:
    """Factor to -1 (its first level) or 1 for each row, of factors with two levels; what `statistics.terms` takes."""
    return {
        name: [-1 if row[name] == next(iter(levels)) else 1 for row in rows.values()]
        for name, levels in factors.items()
    }


def _factorial(base: Recipe, factors: Factors, rows: Layout) -> Design:
    return listed(
        {
            name: _changed(name, base, *(factors[factor][level] for factor, level in row.items()))
            for name, row in rows.items()
        }
    )


def _fraction(factors: Factors, resolution: int) -> list[tuple[str, ...]]:
    count = len(factors)
    if not 3 <= resolution <= count:
        raise SpaceError(
            f"the resolution of a fraction must be at least 3 and at most the number of factors ({count}), "
            f"but got {resolution}"
        )
    signs = np.asarray(pydoe.fracfact_by_res(count, resolution))
    names = [tuple(levels) for levels in factors.values()]
    return [tuple(names[column][int(sign > 0)] for column, sign in enumerate(row)) for row in signs]


def _changed(row: str, base: Recipe, *changes: Change) -> Recipe:
    """The base with changes, one after another, of which only the last result has to be a recipe."""
    together: dict[str, Any] = {}
    for change in changes:
        # A part that is replaced as a whole takes earlier changes of its fields with it.
        together = {name: value for name, value in together.items() if not _inside(name, change)} | dict(change)
    try:
        return base.replace(**together)
    except RecipeError as error:
        raise SpaceError(f"row {row!r} must be a recipe, but is not: {error}") from error


def _inside(name: str, change: Change) -> bool:
    return any(name.startswith(f"{part}.") for part in change)
