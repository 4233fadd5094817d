"""Learning curves of trials that were run: what a simulated search trains instead of networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import RunError
from ..pareto import OBJECTIVES, is_measured
from ..recipe import Recipe
from .simulate import Curve, Row

TIMES = ("train_s", "eval_s", "latency_s")
"""Columns that together are the time a trial took so far, s."""


class Recorded:
    """Curves by recipe, from the rows of a results table; where a recipe was not run, its nearest neighbour's.

    The distance of two recipes is the mean over their fields: 0 or 1 for names and for what is off in one of them, else
    the difference as a share of the field's range in the table. `misses` counts the lookups that found a neighbour.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], rungs: Sequence[int]) -> None:
        """The curves at these rungs; others of their epochs are left out.

        Raises:
            RunError: no row was measured.
        """
        self.misses = 0
        self._recipes: list[Recipe] = []
        self._curves: list[Curve] = []
        self._places: dict[str, int] = {}
        by_trial: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            if row["role"] == "search":
                by_trial.setdefault(row["trial"], []).append(row)
        for group in by_trial.values():
            recipe = Recipe.from_json(group[0]["recipe"])
            if recipe.digest not in self._places and (curve := _curve(group, recipe, rungs)):
                self._places[recipe.digest] = len(self._recipes)
                self._recipes.append(recipe)
                self._curves.append(curve)
        if not self._curves:
            raise RunError(
                f"a simulation needs trials that were measured at the rungs {list(rungs)}, but there are none"
            )
        flat = [recipe.flat() for recipe in self._recipes]
        self._fields = [name for name in flat[0] if len({str(one[name]) for one in flat}) > 1]
        self._ranges = {
            name: np.ptp(numbers)
            for name in self._fields
            if (numbers := [one[name] for one in flat if _is_number(one[name])])
        }
        self._flat = flat

    def curve(self, recipe: Recipe, seed: int = 0) -> Curve:
        """The curve of a recipe; every seed has the same, as the table holds one."""
        place = self._places.get(recipe.digest)
        if place is None:
            self.misses += 1
            place = int(np.argmin([self._distance(recipe.flat(), other) for other in self._flat]))
        return self._curves[place]

    def _distance(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        total = 0.0
        for name in self._fields:
            if _is_number(one[name]) and _is_number(other[name]):
                total += min(1.0, abs(one[name] - other[name]) / (self._ranges[name] or 1.0))
            else:
                total += one[name] != other[name]
        return total


def _curve(rows: Sequence[Mapping[str, Any]], recipe: Recipe, rungs: Sequence[int]) -> Curve | None:
    """The curve of one trial; None where nothing was measured. It fails where the record ends too early."""
    measured = sorted(
        (dict(row) for row in rows if is_measured(row) and row["epoch"] in rungs),
        key=lambda row: row["epoch"],
    )
    if not measured:
        return None
    last = measured[-1]
    seconds = [_seconds(row) for row in measured]
    keys = ("epoch", *OBJECTIVES, "robust_low", "robust_high", "n")
    found: list[Row] = [{name: row[name] for name in keys} for row in measured]
    if last["epoch"] >= recipe.training.epochs:
        return Curve(found, seconds)
    state = last["state"] if last["state"] in ("diverged", "crashed") else "stopped"
    reason = last["reason"] if state != "stopped" else "was not trained any further"
    return Curve(found, [*seconds, seconds[-1]], (state, reason, last["epoch"]))


def _seconds(row: Mapping[str, Any]) -> float:
    return float(sum(row[name] or 0.0 for name in TIMES))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
