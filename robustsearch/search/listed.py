"""A design's rows behind Ray Tune's `Searcher`: every row with every seed, in order, none of them chosen or stopped."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from ray.tune.search import Searcher

from ..recipe import Recipe
from .ledger import Ledger


class ListedSearcher(Searcher):  # type: ignore[misc]
    """Proposes what an earlier driver left unfinished, then each row with the first seed, with the second, ...

    A trial is named after its row and seed, `smoothing-pgd-s1`. So an ablation that is interrupted has whole seeds
    first. As in a search with repeats, the first seed's trials have the role `search` and the others' `repeat`.
    """

    def __init__(self, rows: Mapping[str, Recipe], ledger: Ledger, *, seeds: int, seed: int) -> None:
        """All `rows` with the seeds `seed`, `seed + 1`, ..., `seeds` of them, but for what the ledger has had."""
        super().__init__()
        self._ledger, self._first = ledger, seed
        self._pending = deque(ledger.running.values())
        self._left = deque(
            (name, recipe, seed + offset)
            for offset in range(seeds)
            for row, recipe in rows.items()
            if (name := f"{row}-s{seed + offset}") not in ledger.entries
        )
        self._names: dict[str, str] = {}

    @property
    def left(self) -> int:
        """Trials that nobody has asked for yet."""
        return len(self._left)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config: its name, recipe and seed; `FINISHED` after the last."""
        if self._pending:
            entry = self._pending.popleft()
        elif self._left:
            name, recipe, seed = self._left.popleft()
            entry = self._ledger.ask(name, "search" if seed == self._first else "repeat", recipe, seed, None)
        else:
            return str(Searcher.FINISHED)
        self._names[trial_id] = entry.name
        return {"trial": entry.name, "recipe": entry.recipe.to_json(), "seed": entry.seed}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: what a rung says is recorded by the scheduler."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Write down a trial whose worker died more often than is retried."""
        entry = self._ledger.entries[self._names.pop(trial_id)]
        if error and entry.state == "running":
            self._ledger.finish(entry.name, "crashed", "its worker died", entry.trained, by="worker")

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the ledger: the event log is the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""
