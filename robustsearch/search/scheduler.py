"""Ray Tune's `TrialScheduler`: writes down what a trial reports, then says whether it goes on."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from ..errors import WorkersError
from ..membership import standard_error
from ..pareto import SAME_LATENCY, is_measured
from .halving import goes_on
from .ledger import Entry, Ledger

COMPARED = 1000
"""Newest records of a rung that a trial is compared with: what a decision costs does not grow with the search."""
LOST = 8
"""Workers that one trial may lose in a row without a word from any: a worker that began it would end it before that."""


class RungScheduler(FIFOScheduler):  # type: ignore[misc]
    """First in, first out, with a decision at each rung; its state is the ledger, so nothing is lost with a driver."""

    def __init__(self, ledger: Ledger, *, eta: int | None, changed: Callable[[Entry], object]) -> None:
        """Rungs are `eta` times apart and one in `eta` goes on at each, None stops no trial.

        `changed(entry)` is called after each change of a trial.
        """
        super().__init__()
        self._ledger, self._changed = ledger, changed
        self._lost: Counter[str] = Counter()
        self._one_in = eta
        # By epoch and the device that was timed on: minus robust accuracy, latency.
        self._rungs: dict[tuple[int, str | None], deque[tuple[float, float]]] = {}
        for event in ledger.log.of("report"):
            if ledger.entries[str(event.trial)].role == "search":
                self._record(event.data["row"])
        self._settle()

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Record the rungs that a result brings, and decide."""
        name = trial.config["trial"]
        del self._lost[name]
        entry = self._ledger.entries[name]
        if entry.state != "running":  # Tune had given up a process of it that was alive, and it was handed out again
            return str(self.STOP)
        goes_on = True
        for row in result["rows"]:
            if self._ledger.report(name, row) and entry.role == "search":
                goes_on &= self._goes_on(row, self._record(row))
        if result["ended"]:
            self._ledger.finish(name, result["ended"], result["reason"], result["epoch"])
        else:
            self._decide(entry, result["epoch"], goes_on)
        entry.trained = result["epoch"]
        self._changed(entry)
        return str(self.CONTINUE if entry.state == "running" else self.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """A worker of the trial has died; Tune starts another one.

        Raises:
            WorkersError: they do not come to an epoch.
        """
        name = trial.config["trial"]
        self._lost[name] += 1
        if self._lost[name] >= LOST:
            said = Path(trial.error_file).read_text(errors="replace").split()
            raise WorkersError(
                f"a trial's workers must live for an epoch, but {LOST} of {name!r} died one after the other. The last "
                f"words: {' '.join(said)[-300:]!r}. All of them: {trial.error_file}; what the workers printed: "
                "/tmp/ray/session_latest/logs on the node"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the ledger: the event log is the state."""
        return {}

    def _decide(self, entry: Entry, epoch: int, goes_on: bool) -> None:
        """End a trial that has not ended itself, if it is done, too slow, or not good enough for its rung."""
        if epoch >= entry.recipe.training.epochs:
            self._ledger.finish(entry.name, "completed", epoch=epoch)
        elif not self._feasible(entry):
            self._stop(entry.name, f"slower than the limit of {self._ledger.max_latency:g} ms", epoch)
        elif not goes_on:
            self._stop(entry.name, f"not among the best 1/{self._one_in} of its rung", epoch)

    def _settle(self) -> None:
        """Make the decision that an earlier driver died before: on the last report, if nothing came after it."""
        last = next((event for event in reversed(self._ledger.log.events) if event.kind != "start"), None)
        if last is None or last.kind != "report":
            return
        entry, row = self._ledger.entries[str(last.trial)], last.data["row"]
        place = len(self._rungs.get(_rung(row), ())) - 1 if is_measured(row) else None
        self._decide(entry, row["epoch"], entry.role != "search" or self._goes_on(row, place))

    def _stop(self, name: str, reason: str, epoch: int) -> None:
        self._ledger.finish(name, "stopped", reason, epoch, by="scheduler")

    def _feasible(self, entry: Entry) -> bool:
        """Whether a trial of the search may still be within the limit on latency."""
        return (
            self._one_in is None
            or entry.role != "search"
            or not entry.rows
            or self._ledger.feasible(entry.rows[-1]) is not False
        )

    def _record(self, row: dict[str, Any]) -> int | None:
        """Put a row among the records of its rung; returns its place there, None where it has no metrics."""
        if not is_measured(row):
            return None
        records = self._rungs.setdefault(_rung(row), deque(maxlen=COMPARED))
        records.append((-row["robust"], row["latency_p50"]))
        return len(records) - 1

    def _goes_on(self, row: dict[str, Any], place: int | None) -> bool:
        """Whether a trial of the search is among the best of this rung; the baseline and repeats are not compared."""
        if self._one_in is None:
            return True
        return place is not None and goes_on(
            np.array(self._rungs[_rung(row)]),
            place,
            self._one_in,
            error=standard_error(row["robust"], row.get("n")),
            same=SAME_LATENCY,
        )


def _rung(row: dict[str, Any]) -> tuple[int, str | None]:
    """What a row is compared within."""
    return row["epoch"], row.get("device")
