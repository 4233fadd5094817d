"""A design's rows behind Ray Tune's `Searcher`: every row with every seed, in order, none of them chosen or stopped."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

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
        self._first = seed
        self._left = deque(
            (name, recipe, seed + offset)
            for offset in range(seeds)
            for row, recipe in rows.items()
            if (name := f"{row}-s{seed + offset}") not in ledger.entries
        )

    @property
    def left(self) -> int:
        """Trials that nobody has asked for yet."""
        return len(self._left)

    def _next(self) -> Entry | str | None:
        """The next row with the next seed; `FINISHED` after the last."""
        if not self._left:
            return str(Searcher.FINISHED)
        name, recipe, seed = self._left.popleft()
        return self._ledger.ask(name, "search" if seed == self._first else "repeat", recipe, seed, None)
