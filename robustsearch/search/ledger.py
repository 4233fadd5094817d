"""The ledger of a run: what every trial is, was asked, reported and became.

Each change is an event on disk first; the results and this state follow from it. So a driver that dies at any point is
replaced by one that reads the log.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Any, Literal, Self

from .. import results
from ..events import Event, EventLog
from ..recipe import Recipe
from ..results import State
from ..runfolder import RunFolder

Role = Literal["baseline", "search"]


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("robustsearch", "torch", "ray", "optuna")
    }


@dataclass
class Entry:
    """One trial of the run."""

    name: str
    role: Role
    recipe: Recipe
    seed: int
    number: int | None
    """The trial's number in the Optuna study; None for the baseline."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    state: State = "running"
    reason: str | None = None
    trained: int = 0
    """Epochs trained, as far as this driver has heard."""


class Ledger:
    """Entries by trial name, in the order they were asked for."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._constant = {
            "run": folder.name,
            "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
        }
        self.entries: dict[str, Entry] = {}
        self.log = EventLog(folder.events_file)
        for event in self.log.events:
            self._apply(event)
        for entry in self.entries.values():
            self._write(entry)

    def ask(self, name: str, role: Role, recipe: Recipe, seed: int, number: int | None) -> Entry:
        """A new trial."""
        data = {"role": role, "recipe": recipe.model_dump(mode="json"), "seed": seed, "number": number}
        self._apply(self.log.append("ask", name, **data))
        return self.entries[name]

    def report(self, name: str, row: dict[str, Any]) -> bool:
        """One measured rung; False, and nothing happens, if this epoch is known already."""
        if any(known["epoch"] == row["epoch"] for known in self.entries[name].rows):
            return False
        self._apply(self.log.append("report", name, row=row))
        self._write(self.entries[name])
        return True

    def finish(self, name: str, state: State, reason: str | None = None, epoch: int = 0) -> None:
        """The end of a trial: completed, stopped by the scheduler, diverged or crashed in `epoch`."""
        kind = {"completed": "tell", "stopped": "stop"}.get(state, "fail")
        self._apply(self.log.append(kind, name, state=state, reason=reason, epoch=epoch))  # type: ignore[arg-type]
        self._write(self.entries[name])

    def unfinished(self) -> list[Entry]:
        """Trials that were asked for and have not ended."""
        return [entry for entry in self.entries.values() if entry.state == "running"]

    def searched(self) -> list[Entry]:
        """The sampler's own trials."""
        return [entry for entry in self.entries.values() if entry.role == "search"]

    def _apply(self, event: Event) -> None:
        name, data = event.trial, event.data
        if name is None:
            return
        if event.kind == "ask":
            self.entries[name] = Entry(name, data["role"], Recipe.of(data["recipe"]), data["seed"], data["number"])
        elif event.kind == "report":
            self.entries[name].rows.append(data["row"] | {"time": datetime.fromisoformat(event.time)})
        else:
            entry = self.entries[name]
            entry.state, entry.reason = data["state"], data["reason"]
            if entry.state in results.FAILED:
                entry.rows.append({"epoch": data["epoch"], "time": datetime.fromisoformat(event.time)})

    def _write(self, entry: Entry) -> None:
        shared = (
            self._constant
            | {
                "trial": entry.name,
                "role": entry.role,
                "state": entry.state,
                "reason": entry.reason,
                "seed": entry.seed,
                "digest": entry.recipe.digest,
                "recipe": entry.recipe.to_json(),
            }
            | entry.recipe.flat()
        )
        if entry.rows:
            results.write_trial(self._folder.results, entry.name, [row | shared for row in entry.rows])

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles what it is given for a restore of its own; ours reads the event log instead."""
        return {}

    def close(self) -> None:
        """Close the log."""
        self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
