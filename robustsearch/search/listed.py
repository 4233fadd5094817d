"""A design's rows behind Ray Tune's `Searcher`: every row with every seed, in order, none of them chosen or stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ray.tune.search import Searcher

from ..recipe import Recipe
from .ledger import Entry, Ledger
from .proposer import LedgerSearcher


class ListedSearcher(LedgerSearcher):
    """Proposes what an earlier driver left unfinished, then each row with the first seed, with the second, ...

    A trial is named after its row and seed, `smoothing-pgd-s1`. So an ablation that is interrupted has whole seeds
    first. As in a search with repeats, the first seed's trials have the role `search` and the others' `repeat`.
    """

    def __init__(self, rows: Mapping[str, Recipe], ledger: Ledger, *, seeds: int, seed: int) -> None:
        """All `rows` with the seeds `seed`, `seed + 1`, ..., `seeds` of them, but for what the ledger has had."""
        super().__init__(ledger)
        self._rows, self._seeds = rows, range(seed, seed + seeds)

    @property
    def left(self) -> int:
        """Trials that nobody has asked for yet."""
        rows, more = self._wanted()
        return sum(1 for _ in self._unasked(rows)) + more * len(self._seeds)

    def _wanted(self) -> tuple[Mapping[str, Recipe], int]:
        """The rows to be run as far as they are known now, and how many more there may be."""
        return self._rows, 0

    def _unasked(self, rows: Mapping[str, Recipe]) -> Iterator[tuple[str, Recipe, int]]:
        """Name, recipe and seed of each trial of these rows that the ledger does not have, in order."""
        for seed in self._seeds:
            for row, recipe in rows.items():
                if (name := trial_name(row, seed)) not in self._ledger.entries:
                    yield name, recipe, seed

    def _next(self) -> Entry | str | None:
        """The next row with the next seed; None while rows may follow, `FINISHED` after the last."""
        rows, more = self._wanted()
        for name, recipe, seed in self._unasked(rows):
            return self._ledger.ask(name, "search" if seed == self._seeds[0] else "repeat", recipe, seed, None)
        return None if more else str(Searcher.FINISHED)


def trial_name(row: str, seed: int) -> str:
    """Name of the trial of a row with a seed."""
    return f"{row}-s{seed}"
