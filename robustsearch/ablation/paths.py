"""The path from one recipe to another, change by change: from a default to the best of a search.

What a change gains depends on those before it, so one order is not the answer: compare the one that gains most at each
place (`gaining`) with some `random_order`s. An order may only pass through recipes that are valid: more draws need a
network that is random first.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import RecipeError, SpaceError
from ..recipe import Recipe
from .designs import Change, Design, listed

START = "start"
"""Name of a path's first row."""

WHOLE = ("mix", "attack")
"""Parts that change as one: probabilities sum to 1, and steps have to reach their ball."""
TIED = {"lwta.gate_noise": "lwta.gate"}
"""Fields that change with another one."""


def differences(start: Recipe, end: Recipe) -> dict[str, Change]:
    """The changes that lead from one recipe to the other, by name, in the order of the recipe's fields.

    A part that is on in one of them only is one change; of a part that is on in both, each field is one, but for those
    that make no sense alone (`WHOLE`, `TIED`).
    """
    found: dict[str, dict[str, Any]] = {}
    for name, value in _leaves(start.model_dump(), end.model_dump(), ""):
        found.setdefault(TIED.get(name, name), {})[name] = value
    return {name: dict(change) for name, change in found.items()}


def changes(start: Recipe, end: Recipe) -> dict[str, Change]:
    """The `differences`, of which there must be one.

    Raises:
        SpaceError: there is none.
    """
    if not (found := differences(start, end)):
        raise SpaceError("a path must lead to another recipe, but both are the same")
    return found


def row_name(place: int, change: str) -> str:
    """Name of the row in which a change is made at this place, from 1."""
    return f"{place:02d}-{change}"


def step_of(row: str) -> tuple[int, str] | None:
    """Place and change of the row of that name; None where it is no step of a path."""
    found = re.fullmatch(r"(\d{2,})-(.+)", row)
    return (int(found[1]), found[2]) if found else None


def path(start: Recipe, end: Recipe, order: Sequence[str] | None = None) -> Design:
    """Row `start`, then a row for each change made on top of those before it; the last one is `end`.

    Args:
        start: the first row.
        end: the last row.
        order: names of all `differences`; None is the order that they come in, or the first that passes through
            recipes alone.

    Raises:
        SpaceError: the order is none of the differences, or passes through what is no recipe; the recipes are equal.
    """
    steps = changes(start, end)
    if order is None:
        order = _order(start, steps, lambda ways: ways[0][0])
    if sorted(order) != sorted(steps):
        raise SpaceError(
            f"the order of a path must name each difference once ({', '.join(steps)}), but got {', '.join(order)}"
        )
    rows, recipe = {START: start}, start
    for place, name in enumerate(order, 1):
        try:
            recipe = recipe.replace(**steps[name])
        except RecipeError as error:
            raise SpaceError(f"a path must pass through recipes, but after {name!r} it is at none: {error}") from error
        rows[row_name(place, name)] = recipe
    return listed(rows)


def random_order(start: Recipe, end: Recipe, seed: int) -> list[str]:
    """The changes in an order for `path`: at each place any one that leads to a recipe, all with equal probability."""
    chance = random.Random(seed)
    return _order(start, differences(start, end), lambda ways: chance.choice(ways)[0])


def _order(start: Recipe, steps: dict[str, Change], choose: Callable[[list[tuple[str, Recipe]]], str]) -> list[str]:
    """Make the changes one by one: `choose` names one of those that now lead to a recipe."""
    order: list[str] = []
    while len(order) < len(steps):
        ways = []
        for name in steps:
            if name not in order:
                try:
                    ways.append((name, start.replace(**steps[name])))
                except RecipeError:
                    continue
        if not ways:
            left = ", ".join(name for name in steps if name not in order)
            raise SpaceError(f"a path must pass through recipes, but none of these leads to one alone: {left}")
        order.append(choose(ways))
        start = dict(ways)[order[-1]]
    return order


def _leaves(start: dict[str, Any], end: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Dotted names whose values differ, with those at the end."""
    found: list[tuple[str, Any]] = []
    for name, value in end.items():
        before, dotted = start[name], prefix + name
        if isinstance(value, dict) and isinstance(before, dict) and dotted not in WHOLE:
            found += _leaves(before, value, f"{dotted}.")
        elif value != before:
            found.append((dotted, value))
    return found
