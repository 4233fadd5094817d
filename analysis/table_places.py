"""What a gaining path tried at each place, and what it took there, as the names and recipes of its rows say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


def places(recipes: Mapping[str, str]) -> list[Place]:
    """The places of a gaining path, from its rows' recipes as JSON; none for a design that tries one row a place."""
    steps = {row: step for row in recipes if (step := step_of(row))}
    if next(iter(recipes), None) != START or len(steps) < len(recipes) - 1:
        return []
    tried: dict[int, list[str]] = {}
    for row, (number, _) in steps.items():
        tried.setdefault(number, []).append(row)
    if len(tried) == len(steps):
        return []
    found: list[Place] = []
    left = {change for _, change in steps.values()}
    for number, rows in sorted(tried.items()):
        taken = _taken(rows, tried.get(number + 1, []), recipes, steps)
        if taken is None and {steps[row][1] for row in rows} == left:
            taken = rows[0] if len(rows) == 1 else None  # the last change of all
        found.append(Place(number, rows, taken))
        left -= {steps[taken][1]} if taken else set()
    return found


def _taken(
    rows: Sequence[str], after: Sequence[str], recipes: Mapping[str, str], steps: Mapping[str, tuple[int, str]]
) -> str | None:
    """The row that the first of those `after` differs from by its own change alone."""
    for follower in after[:1]:
        end = Recipe.from_json(recipes[follower])
        for row in rows:
            if list(differences(Recipe.from_json(recipes[row]), end)) == [steps[follower][1]]:
                return row
    return None
