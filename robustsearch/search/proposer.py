"""What every searcher does for Ray Tune: hand out the trials of a ledger, those first that a driver left unfinished."""

from __future__ import annotations

from collections import deque
from typing import Any

from ray.tune.search import Searcher

from .ledger import Entry, Ledger


class LedgerSearcher(Searcher):  # type: ignore[misc]
    """A Tune `Searcher` whose state is the ledger; what comes next is `_next` of the subclass."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        ledger.on_end = self._ended
        self._names: dict[str, str] = {}
        self._pending = deque(ledger.running.values())

    @property
    def left(self) -> int:
        """Trials that nobody has asked for yet, as far as is known: at most so many, and 0 only where none will be.

        Further seeds of a search are not counted.
        """
        raise NotImplementedError

    def _next(self) -> Entry | str | None:
        """A new trial of the ledger; None while there may be one later, else `FINISHED`."""
        raise NotImplementedError

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config: its name, recipe and seed; None while there may be one later, else `FINISHED`.

        `settings` are those of the recipe by name, for the loggers of others to show.
        """
        while self._pending and self._pending[0].state != "running":
            self._pending.popleft()  # the scheduler has made the decision that an earlier driver died before
        entry = self._pending.popleft() if self._pending else self._next()
        if not isinstance(entry, Entry):
            return None if self._ledger.running else entry  # one of those may have to be handed out again
        self._names[trial_id] = entry.name
        settings = {name: value for name, value in entry.recipe.flat().items() if value is not None}
        return {"trial": entry.name, "recipe": entry.recipe.to_json(), "seed": entry.seed, "settings": settings}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: what a rung says is recorded by the scheduler, which decides on it."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial, which the ledger knows unless, by `error`, its worker died while it took the trial over.

        Tune starts another worker for any trial but such a one. It is handed out again, before all others; the
        scheduler counts how often.
        """
        name = self._names.pop(trial_id, None)  # none where Tune had given it up before
        if error and name and (entry := self._ledger.entries[name]).state == "running":
            self._pending.appendleft(entry)

    def _ended(self, entry: Entry) -> None:
        """Called with each trial as it ends."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the ledger: the event log is the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""
