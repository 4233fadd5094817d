"""The ledger of a run: what every trial is, was asked, reported and became.

Each change is an event on disk first; the results and this state follow from it. So a driver that dies at any point is
replaced by one that reads the log.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Any, Literal, Self

from .. import results
from ..events import Event, EventLog
from ..recipe import Recipe
from ..results import State
from ..runfolder import RunFolder

Role = Literal["baseline", "search", "repeat"]
"""The plain network; a recipe that the sampler chose; one of those again, with another seed."""

Decider = Literal["trial", "scheduler", "worker"]
"""Who ended a trial: its own training, the scheduler, or (in old logs) the loss of its worker."""


@cache
def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("robustsearch", "torch", "ray", "optuna")
    }


def _text(numbers: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


@dataclass
class Entry:
    """One trial of the run."""

    name: str
    role: Role
    recipe: Recipe
    seed: int
    number: int | None
    """The trial's number in the Optuna study; None for the baseline and for repeats."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    state: State = "running"
    reason: str | None = None
    by: Decider | None = None
    """Who ended it."""
    trained: int = 0
    """Epochs trained, as far as this driver has heard."""

    @property
    def columns(self) -> dict[str, Any]:
        """What every row of its results says of the trial."""
        return {
            "trial": self.name,
            "role": self.role,
            "state": self.state,
            "reason": self.reason,
            "seed": self.seed,
            "digest": self.recipe.digest,
            "recipe": self.recipe.to_json(),
        }


class Ledger:
    """Entries by trial name, in the order they were asked for.

    Attributes:
        entries: every trial.
        searched: the sampler's own trials, in order.
        running: those that were asked for and have not ended.
        ended_epochs: epochs trained by all that have ended, and `ended` is their number.
        on_end: called with a trial as soon as its end is on disk, before anything else can be asked for. Tune tells a
            searcher later, and what was asked in between would depend on what no log holds.
    """

    def __init__(self, folder: RunFolder | None, *, max_latency: float | None = None) -> None:
        """The ledger of a run folder; without one, that of a simulated search, which writes nothing.

        A row whose p50 is above `max_latency`, in ms, is not `feasible`.
        """
        self._folder = folder
        self.max_latency = max_latency
        self._run = folder.name if folder else "simulated"
        self._versions = _text(versions())
        self.entries: dict[str, Entry] = {}
        self.searched: list[Entry] = []
        self.running: dict[str, Entry] = {}
        self.ended = self.ended_epochs = 0
        self.on_end: Callable[[Entry], object] = lambda entry: None
        self.log = EventLog(folder.events_file, folder.store) if folder else EventLog(None)
        for event in self.log.events:
            self._apply(event)
        for entry in self.entries.values():
            self._write(entry)

    @classmethod
    def of(cls, events: Sequence[Event]) -> Ledger:
        """A ledger in memory that has seen these events."""
        ledger = cls(None)
        ledger.log.events = list(events)
        for event in events:
            ledger._apply(event)
        return ledger

    @property
    def crashed(self) -> int:
        """How many trials have crashed."""
        return sum(entry.state == "crashed" for entry in self.entries.values())

    def start(self, info: dict[str, Any]) -> None:
        """A driver begins; `info` is what `run.json` says."""
        self._apply(self.log.append("start", info=info, versions=versions()))

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

    def finish(
        self, name: str, state: State, reason: str | None = None, epoch: int = 0, *, by: Decider = "trial"
    ) -> None:
        """The end of a trial: completed, stopped, diverged or crashed in `epoch`, and who decided it."""
        kind = {"completed": "tell", "stopped": "stop"}.get(state, "fail")
        self._apply(self.log.append(kind, name, state=state, reason=reason, epoch=epoch, by=by))  # type: ignore[arg-type]
        self._write(self.entries[name])
        self.on_end(self.entries[name])

    def _apply(self, event: Event) -> None:
        name, data = event.trial, event.data
        if event.kind == "start":
            self._versions = _text(data.get("versions") or (data.get("info") or {}).get("versions") or versions())
        if name is None:
            return
        if event.kind == "ask":
            entry = Entry(name, data["role"], Recipe.of(data["recipe"]), data["seed"], data["number"])
            self.entries[name] = self.running[name] = entry
            if entry.role == "search":
                self.searched.append(entry)
        elif event.kind == "report":
            self.entries[name].rows.append(data["row"] | self._stamp(event))
        else:
            entry = self.running.pop(name)
            entry.state, entry.reason, entry.by = data["state"], data["reason"], data.get("by")
            entry.trained = max(entry.trained, data["epoch"])
            self.ended, self.ended_epochs = self.ended + 1, self.ended_epochs + entry.trained
            if entry.state in results.FAILED:
                entry.rows.append({"epoch": data["epoch"]} | self._stamp(event))

    def _stamp(self, event: Event) -> dict[str, Any]:
        """What a row says of the event that it came with, and of the driver that wrote it."""
        return {"time": datetime.fromisoformat(event.time), "versions": self._versions}

    def _write(self, entry: Entry) -> None:
        if not (self._folder and entry.rows):
            return
        shared = {"run": self._run} | entry.columns | entry.recipe.flat()
        rows = [row | shared | {"feasible": self.feasible(row)} for row in entry.rows]
        results.write_trial(self._folder.results, entry.name, rows)

    def feasible(self, row: dict[str, Any]) -> bool | None:
        """Whether a row is within the limit on latency; None where it was not timed."""
        latency = row.get("latency_p50")
        return None if latency is None else self.max_latency is None or latency <= self.max_latency

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
