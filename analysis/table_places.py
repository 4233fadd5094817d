"""What a gaining path tried at each place, and what it took there, as the names and recipes of its rows say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robustsearch.ablation.paths import START, differences, step_of
from robustsearch.recipe import Recipe


@dataclass(frozen=True)
class Place:
    """One place of a path."""

    number: int
    tried: list[str]
    """Names of the rows, in order."""
    taken: str | None
    """The one that the rows after it start from; None where nothing is taken yet."""


def places(recipes: Mapping[str, Mapping[str, Any]], *, ended: bool) -> list[Place]:
    """The places of a gaining path from its rows' recipes, in order; none for a design that tries one row a place.

    Until the run has `ended`, the only row of the last place may be the first of several.
    """
    steps = {row: step for row in recipes if (step := step_of(row))}
    if next(iter(recipes), None) != START or len(steps) < len(recipes) - 1:
        return []
    tried: dict[int, list[str]] = {}
    for row, (number, _) in steps.items():
        tried.setdefault(number, []).append(row)
    if len(tried) == len(steps):
        return []
    found = []
    for number, rows in sorted(tried.items()):
        follower = next(iter(tried.get(number + 1, [])), None)
        if follower is None:
            taken = rows[0] if ended and len(rows) == 1 else None
        else:  # it has what was taken, and its own change
            own, end = [steps[follower][1]], Recipe.of(recipes[follower])
            taken = next((row for row in rows if list(differences(Recipe.of(recipes[row]), end)) == own), None)
        found.append(Place(number, rows, taken))
    return found
