"""Who is compared by `benchmarks.searchers`: a sampler and a stopping rule each, and one simulated search of theirs.

Peers run through their own code: Optuna's samplers, Ray Tune's ASHA and, where it is installed (`pip install --no-deps
dill syne-tune==0.16.0`), Syne Tune's MOASHA. All stopping rules have the same rungs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.tune.schedulers import AsyncHyperBandScheduler

from benchmarks.problems import EPSILON, GRACE, Problem
from robustsearch.search.halving import rungs
from robustsearch.search.ledger import Ledger
from robustsearch.search.scheduler import RungScheduler
from robustsearch.search.searcher import OptunaSearcher, make_study
from robustsearch.search.simulate import Decider, simulate

ETA = 2
WORKERS = 4
Peer = Callable[[str, dict[str, Any]], bool]
"""`(trial, row) -> whether it goes on`."""


@dataclass(frozen=True)
class Contender:
    """A sampler and a stopping rule."""

    name: str
    sampler: str
    rule: str


CONTENDERS = (
    Contender("random, no stopping", "random", "none"),
    Contender("Optuna TPE, no stopping", "tpe", "none"),
    Contender("Optuna NSGA-II, no stopping", "nsga2", "none"),
    Contender("Optuna GP, no stopping", "gp", "none"),
    Contender("random + Ray ASHA on accuracy", "random", "ray"),
    Contender("random + Syne Tune MOASHA", "random", "syne"),
    Contender("random + ours", "random", "ours"),
    Contender("robustsearch (TPE + ours)", "tpe", "ours"),
    Contender("robustsearch (GP + ours)", "gp", "ours"),
)


def ray_asha(seed: int, epochs: int) -> Peer:
    """Ray Tune's ASHA, on robust accuracy alone."""
    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch", metric="robust", mode="max", grace_period=GRACE, reduction_factor=ETA, max_t=epochs + 1
    )
    known: dict[str, Any] = {}

    @dataclass
    class Named:
        trial_id: str

    def goes_on(trial: str, row: dict[str, Any]) -> bool:
        if trial not in known:
            known[trial] = Named(trial)
            scheduler.on_trial_add(None, known[trial])
        return bool(scheduler.on_trial_result(None, known[trial], row) == scheduler.CONTINUE)

    return goes_on


def syne_moasha(seed: int, epochs: int) -> Peer:
    """Syne Tune's multi-objective ASHA, with its default priority."""
    from syne_tune.backend.trial_status import Trial as SyneTrial  # type: ignore[import-not-found]
    from syne_tune.optimizer.scheduler import SchedulerDecision  # type: ignore[import-not-found]
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA  # type: ignore[import-not-found]

    np.random.seed(seed)  # noqa: NPY002  (it draws its brackets from the global generator)
    scheduler = MOASHA(
        {}, ["loss", "latency"], time_attr="epoch", max_t=epochs, grace_period=GRACE, reduction_factor=ETA
    )
    known: dict[str, Any] = {}

    def goes_on(trial: str, row: dict[str, Any]) -> bool:
        if trial not in known:
            known[trial] = SyneTrial(trial_id=len(known), config={}, creation_time=None)
            scheduler.on_trial_add(known[trial])
        result = {"epoch": row["epoch"], "loss": -row["robust"], "latency": row["latency_p50"]}
        return bool(scheduler.on_trial_result(known[trial], result) == SchedulerDecision.CONTINUE)

    return goes_on


class PeerScheduler(RungScheduler):
    """The project's scheduler, with a peer's rule in place of its own."""

    def __init__(self, ledger: Ledger, peer: Peer) -> None:
        super().__init__(ledger, eta=ETA, changed=lambda entry: None)
        self._peer = peer
        self._now = ""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self._now = trial.config["trial"]
        return super().on_trial_result(tune_controller, trial, result)

    def _goes_on(self, row: dict[str, Any], place: int | None) -> bool:
        return self._peer(self._now, row)


def search(
    problem: Problem, contender: Contender, trials: int, seed: int, *, cost: float = np.inf
) -> NDArray[np.float64]:
    """One simulated search that ends once it has spent `cost` s.

    Returns rows of cost in s, minus robust accuracy, latency in ms and trial.

    It asks for at most so many `trials`.
    """
    ledger = Ledger(None)
    stops = contender.rule != "none"
    # A search that stops nobody reports at the same epochs as one that stops.
    found = rungs(problem.epochs, ETA, GRACE)
    searcher = OptunaSearcher(
        problem.space,
        ledger,
        make_study("benchmark"),
        baseline=None,
        overrides={},
        epsilon=EPSILON,
        sampler=contender.sampler,
        trials=trials,
        repeats=0,
        seed=seed,
    )
    scheduler: Decider
    if contender.rule in ("ray", "syne"):
        scheduler = PeerScheduler(ledger, {"ray": ray_asha, "syne": syne_moasha}[contender.rule](seed, problem.epochs))
    else:
        scheduler = RungScheduler(ledger, eta=ETA if stops else None, changed=lambda entry: None)
    rows = []
    for moment in simulate(searcher, scheduler, problem.curves(found), workers=WORKERS):
        if moment.cost > cost:
            break
        rows.append((moment.cost, -moment.row["robust"], moment.row["latency_p50"], int(moment.trial)))
    return np.array(rows)
