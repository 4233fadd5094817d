"""A search without training: the same searcher, scheduler and ledger, driven by recorded or computed learning curves.

Workers are simulated in time: each takes what the searcher proposes, walks along the curve of that recipe, reports at
the rungs and stops when the scheduler says so. So samplers and schedulers are compared on equal trials in seconds, and
ten thousand trials on 256 workers cost no cluster.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, Protocol

from ray.tune.search import Searcher

from ..recipe import Recipe

Row = dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """What one trial reports, and what that costs."""

    rows: Sequence[Row]
    """A row a rung, ascending, with `epoch` and the objectives."""
    seconds: Sequence[float]
    """Time from the start of the trial to each row and, if it fails, to that."""
    failed: tuple[str, str, int] | None = None
    """State, reason and epoch of a trial that does not reach its end."""


class Proposer(Protocol):
    """What is simulated of Tune's `Searcher`."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The config of the next trial, None for not yet, or `FINISHED`."""
        ...

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended."""
        ...


class Decider(Protocol):
    """What is simulated of Tune's `TrialScheduler`."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """`CONTINUE` or `STOP`."""
        ...


@dataclass(frozen=True)
class Moment:
    """A report of the simulated search."""

    time: float
    """Since the start, s."""
    cost: float
    """Time that all workers have worked for reports so far, s; what a lost worker had not reported counts too."""
    trial: str
    row: Row


@dataclass
class SimulatedTrial:
    """A trial on its worker; what a scheduler sees of one."""

    trial_id: str
    config: dict[str, Any]
    curve: Curve
    place: int = 0
    """Rows reported so far."""

    def step(self) -> float:
        """Time from the last report to the next."""
        return self.curve.seconds[self.place] - (self.curve.seconds[self.place - 1] if self.place else 0.0)

    def result(self) -> dict[str, Any]:
        """What the worker tells the driver at the next report: every rung so far, as Tune's trainable does."""
        if self.place == len(self.curve.rows):
            assert self.curve.failed is not None, "a curve must lead to the last epoch of its recipe, or fail"
            state, reason, epoch = self.curve.failed
            return {"rows": self.curve.rows, "epoch": epoch, "ended": state, "reason": reason}
        rows = self.curve.rows[: self.place + 1]
        return {"rows": rows, "epoch": rows[-1]["epoch"], "ended": None, "reason": None}


def simulate(
    searcher: Proposer,
    scheduler: Decider,
    curve: Callable[[Recipe, int], Curve],
    *,
    workers: int,
    losses: float = 0.0,
    seed: int = 0,
) -> Iterator[Moment]:
    """Run a whole search in simulated time; yields each report once it has been decided on.

    Args:
        searcher: proposes trials.
        scheduler: records reports and decides; it shares a ledger with the searcher.
        curve: of a recipe and a seed.
        workers: trials at a time.
        losses: probability that a worker dies between two reports, half-way; its trial goes on from the last one.
        seed: of the losses.
    """
    chance, numbers = Random(seed), count()
    queue: list[tuple[float, int, SimulatedTrial, bool]] = []  # due, order, trial, whether its worker is lost then
    now = cost = 0.0
    free, finished = workers, False

    def push(trial: SimulatedTrial) -> None:
        lost = chance.random() < losses
        heapq.heappush(queue, (now + trial.step() * (0.5 if lost else 1.0), next(numbers), trial, lost))

    while True:
        while free and not finished:
            name = f"simulated{next(numbers)}"
            config = searcher.suggest(name)
            finished = config == Searcher.FINISHED
            if not isinstance(config, dict):
                break
            push(SimulatedTrial(name, config, curve(Recipe.from_json(config["recipe"]), config["seed"])))
            free -= 1
        if not queue:
            return
        now, _, trial, lost = heapq.heappop(queue)
        cost += trial.step() * (0.5 if lost else 1.0)
        if lost:
            push(trial)
            continue
        result = trial.result()
        decision = scheduler.on_trial_result(None, trial, result)
        if not result["ended"]:
            yield Moment(now, cost, trial.config["trial"], result["rows"][-1])
        if decision == "STOP":
            searcher.on_trial_complete(trial.trial_id, result)
            free += 1
        else:
            trial.place += 1
            push(trial)
