"""Ray Tune's `TrialScheduler`: writes down what a trial reports, then says whether it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from ..pareto import OBJECTIVES
from .halving import goes_on
from .ledger import Entry, Ledger


class RungScheduler(FIFOScheduler):  # type: ignore[misc]
    """First in, first out, with a decision at each rung; its state is the ledger, so nothing is lost with a driver."""

    def __init__(self, ledger: Ledger, *, eta: int | None, changed: Callable[[Entry], object]) -> None:
        """`eta` None never stops a trial; `changed(entry)` is called after each change of an entry."""
        super().__init__()
        self._ledger, self._eta, self._changed = ledger, eta, changed

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Record the rungs that a result brings, and decide."""
        name = trial.config["trial"]
        entry = self._ledger.entries[name]
        new = [row for row in result["rows"] if self._ledger.report(name, row)]
        if result["failed"]:
            self._ledger.finish(name, result["failed"], result["reason"], result["epoch"])
        elif result["epoch"] >= entry.recipe.training.epochs:
            self._ledger.finish(name, "completed", epoch=result["epoch"])
        elif any(not self._goes_on(entry, row["epoch"]) for row in new):
            self._ledger.finish(name, "stopped", f"not among the best 1/{self._eta} of its rung", result["epoch"])
        entry.trained = result["epoch"]
        self._changed(entry)
        return str(self.CONTINUE if entry.state == "running" else self.STOP)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the ledger: the event log is the state."""
        return {}

    def _goes_on(self, entry: Entry, epoch: int) -> bool:
        """Whether a trial is among the best at this rung; the baseline always is, and is not compared with."""
        if self._eta is None or entry.role == "baseline":
            return True
        points: list[list[float]] = []
        index = -1
        for other in self._ledger.searched():
            for row in other.rows:
                if row["epoch"] == epoch and all(row.get(name) is not None for name in OBJECTIVES):
                    if other is entry:
                        index = len(points)
                    points.append([-row["robust"], row["latency_p50"]])
        return goes_on(np.array(points), index, self._eta)
