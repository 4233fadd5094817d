"""A gaining path behind Ray Tune's `Searcher`: what is tried at a place waits for what the place before measured."""

from __future__ import annotations

from collections.abc import Mapping

from ..ablation.gaining import GainingPath, gain_of
from ..recipe import Recipe
from ..results import FAILED
from .ledger import Entry, Ledger
from .listed import ListedSearcher, trial_name


class GainingSearcher(ListedSearcher):
    """Proposes every row that the path tries at a place, with every seed, once all trials of the last place have ended.

    Which one was taken there follows from the ledger alone, so a new driver and a replay decide as the first one did.
    """

    def __init__(self, path: GainingPath, ledger: Ledger, *, seeds: int, seed: int) -> None:
        """The path with the seeds `seed`, `seed + 1`, ..., `seeds` of them, but for what the ledger has had."""
        super().__init__({}, ledger, seeds=seeds, seed=seed)
        self._path = path

    def _wanted(self) -> tuple[Mapping[str, Recipe], int]:
        """The rows that the path has so far, and how many more there may be."""
        grown = self._path.grow(self._gain)
        return grown.rows, max(grown.open.values(), default=0)

    def _gain(self, row: str) -> float | None:
        """How good a row is by its trials' last rungs; None until all of them have ended."""
        entries = [self._ledger.entries.get(trial_name(row, seed)) for seed in self._seeds]
        ended = [entry for entry in entries if entry and entry.state != "running"]
        return gain_of([accuracy(entry) for entry in ended]) if len(ended) == len(entries) else None


def accuracy(entry: Entry) -> float | None:
    """Robust accuracy at the last rung of a trial; None where it failed or was not measured."""
    measured = [row["robust"] for row in entry.rows if row.get("robust") is not None]
    return float(measured[-1]) if measured and entry.state not in FAILED else None
