"""Searchers side by side, on equal trials: `python -m benchmarks.searchers [--problem table] [--seeds 20]`.

Every contender asks for the same number of recipes, on the same number of simulated workers, and is judged by the
normalised hypervolume of what it has measured against what the measuring has cost. Peers run through their own code:
Optuna's samplers, Ray Tune's ASHA and, where it is installed (`pip install --no-deps syne-tune==0.16.0`), Syne Tune's
MOASHA; all stopping rules have the same rungs. Prints a Markdown table and draws `searchers-PROBLEM.png`: hypervolume
against cost, and the 50% attainment surfaces (what half of the searches reach).
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import optuna
from numpy.typing import NDArray
from ray.tune.schedulers import AsyncHyperBandScheduler

from benchmarks.problems import EPOCHS, EPSILON, PROBLEMS, Problem
from robustsearch.pareto import normalised_hypervolume
from robustsearch.search.halving import rungs
from robustsearch.search.ledger import Ledger
from robustsearch.search.scheduler import RungScheduler
from robustsearch.search.searcher import OptunaSearcher, choose_sampler, make_study
from robustsearch.search.simulate import Decider, simulate

ETA, GRACE = 3, 1
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
    Contender("robustsearch", "auto", "ours"),
)


def ray_asha(seed: int) -> Peer:
    """Ray Tune's ASHA, on robust accuracy alone."""
    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch", metric="robust", mode="max", grace_period=GRACE, reduction_factor=ETA, max_t=EPOCHS + 1
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


def syne_moasha(seed: int) -> Peer:
    """Syne Tune's multi-objective ASHA, with its default priority."""
    from syne_tune.backend.trial_status import Trial as SyneTrial  # type: ignore[import-not-found]
    from syne_tune.optimizer.scheduler import SchedulerDecision  # type: ignore[import-not-found]
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA  # type: ignore[import-not-found]

    np.random.seed(seed)  # noqa: NPY002  (it draws its brackets from the global generator)
    scheduler = MOASHA(
        {}, ["loss", "latency"], time_attr="epoch", max_t=EPOCHS, grace_period=GRACE, reduction_factor=ETA
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


def search(problem: Problem, contender: Contender, trials: int, seed: int) -> NDArray[np.float64]:
    """One simulated search: rows of cost in s, minus robust accuracy and latency in ms, in order of time."""
    ledger = Ledger(None)
    # A search that stops nobody reports at the same epochs as one that stops.
    found = rungs(EPOCHS, ETA, GRACE)
    auto = choose_sampler(problem.space.sample(EPSILON, 0))
    searcher = OptunaSearcher(
        problem.space,
        ledger,
        make_study("benchmark"),
        baseline=None,
        overrides={},
        epsilon=EPSILON,
        sampler=auto if contender.sampler == "auto" else contender.sampler,
        trials=trials,
        repeats=0,
        seed=seed,
    )
    scheduler: Decider
    if contender.rule in ("ray", "syne"):
        scheduler = PeerScheduler(ledger, {"ray": ray_asha, "syne": syne_moasha}[contender.rule](seed))
    else:
        eta = ETA if contender.rule == "ours" else None
        scheduler = RungScheduler(ledger, eta=eta, changed=lambda entry: None)
    moments = simulate(searcher, scheduler, problem.curves(found), workers=WORKERS)
    return np.array([(moment.cost, -moment.row["robust"], moment.row["latency_p50"]) for moment in moments])


def _one(job: tuple[str, int, int, int]) -> NDArray[np.float64]:
    problem, contender, trials, seed = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)
    return search(PROBLEMS[problem](), CONTENDERS[contender], trials, seed)


def attained(run: NDArray[np.float64], base: float) -> NDArray[np.float64]:
    """Normalised hypervolume after each report."""
    return np.array([normalised_hypervolume(run[: place + 1, 1:], base) for place in range(len(run))])


def interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """95% percentile-bootstrap interval of the mean."""
    draws = np.random.default_rng(seed).choice(values, (4000, len(values))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def compare(problem: Problem, runs: dict[str, list[NDArray[np.float64]]]) -> str:
    """The table, in Markdown."""
    finals = {name: np.array([attained(run, problem.base)[-1] for run in found]) for name, found in runs.items()}
    best = max((name for name in finals if "no stopping" in name), key=lambda name: finals[name].mean())
    goal = finals[best].mean()
    full = statistics.mean(run[-1, 0] for run in runs[best])
    lines = [
        "| searcher | final hypervolume, % [95%] | cost, % of the best without stopping | "
        "cost to its final hypervolume, % |",
        "|---|---|---|---|",
    ]
    for name, found in runs.items():
        low, high = interval(finals[name])
        reached = [_cost_to(run, attained(run, problem.base), goal) / full for run in found]
        share = f"{100 * statistics.median(reached):.0f}" if np.isfinite(statistics.median(reached)) else "not reached"
        cost = 100 * statistics.mean(run[-1, 0] for run in found) / full
        lines.append(
            f"| {name}{' (best without)' if name == best else ''} | {100 * finals[name].mean():.2f} "
            f"[{100 * low:.2f}, {100 * high:.2f}] | {cost:.0f} | {share} |"
        )
    return "\n".join(lines)


def _cost_to(run: NDArray[np.float64], values: NDArray[np.float64], goal: float) -> float:
    there = np.flatnonzero(values >= goal)
    return float(run[there[0], 0]) if len(there) else float("inf")


def draw(problem: Problem, runs: dict[str, list[NDArray[np.float64]]], path: Path) -> None:
    """Hypervolume against cost with its interval, and attainment surfaces."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from robustsearch.analysis import style  # type: ignore[import-not-found]

    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(9.5, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        colours = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
        most = max(run[-1, 0] for found in runs.values() for run in found)
        grid = np.geomspace(most / 200, most, 120)
        for (name, found), colour in zip(runs.items(), colours, strict=False):
            width = 2.2 if name == "robustsearch" else 1.1
            curves = []
            for run in found:
                values = np.concatenate([[0.0], attained(run, problem.base)])
                curves.append(values[np.searchsorted(run[:, 0], grid, side="right")])
            stack = 100 * np.array(curves)
            ends = np.array([interval(column) for column in stack.T])
            longest = max(run[-1, 0] for run in found)
            shown = grid <= longest
            left.plot(grid[shown], stack.mean(axis=0)[shown], color=colour, lw=width, label=name)
            left.fill_between(grid[shown], *ends[shown].T, color=colour, alpha=0.15, lw=0)
            points = np.concatenate([run[:, 1:] for run in found])
            sets = np.concatenate([np.full(len(run), number + 1) for number, run in enumerate(found)])
            surface = moocore.eaf(points, sets=sets, percentiles=[50])
            surface = surface[np.argsort(surface[:, 1])]
            right.step(surface[:, 1], -100 * surface[:, 0], where="post", color=colour, lw=width)
        left.set_xscale("log")
        left.set(xlabel="cost (s of training and evaluation)", ylabel="normalised hypervolume (%)")
        right.set(xlabel="latency p50 (ms)", ylabel="robust accuracy (%) reached by half of the searches")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
        figure.savefig(path, dpi=200)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=PROBLEMS, default="table")
    parser.add_argument("--seeds", type=int, default=20, metavar="N")
    parser.add_argument("--trials", type=int, default=60, metavar="N", help="recipes that each search asks for")
    parser.add_argument("--only", nargs="*", metavar="WORD", help="contenders with one of these words in their names")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), metavar="DIR")
    given = parser.parse_args()
    try:
        import syne_tune  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        print("syne-tune is not installed: its MOASHA is left out")
        absent = "syne"
    else:
        absent = ""
    chosen = [
        index
        for index, one in enumerate(CONTENDERS)
        if one.rule != absent and (not given.only or any(word in one.name for word in given.only))
    ]
    jobs = [(given.problem, index, given.trials, seed) for index in chosen for seed in range(given.seeds)]
    with ProcessPoolExecutor(given.processes) as pool:
        found = list(pool.map(_one, jobs))
    runs: dict[str, list[NDArray[np.float64]]] = {}
    for (_, index, _, _), run in zip(jobs, found, strict=True):
        runs.setdefault(CONTENDERS[index].name, []).append(run)
    problem = PROBLEMS[given.problem]()
    print(
        f"{given.problem}: {given.trials} trials, {given.seeds} seeds, {WORKERS} workers, rungs {rungs(EPOCHS, ETA, GRACE)}"
    )
    print(compare(problem, runs))
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"searchers-{given.problem}.png"
    draw(problem, runs, path)
    print(path)


if __name__ == "__main__":
    main()
