"""Searchers side by side, on equal trials: `python -m benchmarks.searchers [--problem table] [--seeds 20]`.

Every contender has the same cost to spend, that of the searches that stop no trial, and the same number of simulated
workers. It is judged by the normalised hypervolume of what it has measured by then, and at a quarter of it. Peers run
through their own code: Optuna's samplers, Ray Tune's ASHA and, where it is installed (`pip install --no-deps
syne-tune==0.16.0`), Syne Tune's MOASHA; all stopping rules have the same rungs. Prints a Markdown table and draws
`searchers-PROBLEM.png`: hypervolume against cost, and the 50% attainment surfaces (what half of the searches reach).
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
from robustsearch.search.searcher import OptunaSearcher, make_study
from robustsearch.search.simulate import Decider, simulate

ETA, GRACE = 2, 3
WORKERS = 4
MORE = 4
"""Searches that stop trials may ask for so many times the recipes of those that do not, within the same cost."""
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
    """One simulated search: rows of cost in s, minus robust accuracy, latency in ms and trial, in order of time."""
    ledger = Ledger(None)
    # A search that stops nobody reports at the same epochs as one that stops.
    found = rungs(EPOCHS, ETA, GRACE)
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
        scheduler = PeerScheduler(ledger, {"ray": ray_asha, "syne": syne_moasha}[contender.rule](seed))
    else:
        eta = ETA if contender.rule == "ours" else None
        scheduler = RungScheduler(ledger, eta=eta, changed=lambda entry: None)
    moments = simulate(searcher, scheduler, problem.curves(found), workers=WORKERS)
    return np.array(
        [(moment.cost, -moment.row["robust"], moment.row["latency_p50"], int(moment.trial)) for moment in moments]
    )


def _one(job: tuple[str, int, int, int]) -> NDArray[np.float64]:
    problem, contender, trials, seed = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)
    chosen = CONTENDERS[contender]
    return search(PROBLEMS[problem](), chosen, trials if chosen.rule == "none" else MORE * trials, seed)


def attained(run: NDArray[np.float64], base: float) -> NDArray[np.float64]:
    """Normalised hypervolume after each report."""
    return np.array([normalised_hypervolume(run[: place + 1, 1:3], base) for place in range(len(run))])


def interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """95% percentile-bootstrap interval of the mean."""
    draws = np.random.default_rng(seed).choice(values, (4000, len(values))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def compare(problem: Problem, runs: dict[str, list[NDArray[np.float64]]]) -> str:
    """The table, in Markdown."""
    full = statistics.mean(run[-1, 0] for name, found in runs.items() if "no stopping" in name for run in found)
    ends = {name: np.array([_at(run, problem.base, full) for run in found]) for name, found in runs.items()}
    best = max((name for name in ends if "no stopping" in name), key=lambda name: ends[name].mean())
    lines = [
        "| searcher | hypervolume at the full cost, % [95%] | at a quarter of it, % [95%] | cost to the best without "
        "stopping, % of full | trials in it |",
        "|---|---|---|---|---|",
    ]
    for name, found in runs.items():
        early = np.array([_at(run, problem.base, full / 4) for run in found])
        reached = statistics.median(_cost_to(run, problem.base, float(ends[best].mean())) for run in found) / full
        share = f"{100 * reached:.0f}" if reached <= 1 else "not reached"
        trials = statistics.mean(len(np.unique(run[run[:, 0] <= full, 3])) for run in found)
        figures = " | ".join(
            f"{100 * values.mean():.2f} [{100 * interval(values)[0]:.2f}, {100 * interval(values)[1]:.2f}]"
            for values in (ends[name], early)
        )
        lines.append(f"| {name}{' (best without)' if name == best else ''} | {figures} | {share} | {trials:.0f} |")
    return "\n".join(lines)


def _at(run: NDArray[np.float64], base: float, cost: float) -> float:
    """Normalised hypervolume attained at a cost."""
    return normalised_hypervolume(run[run[:, 0] <= cost, 1:3], base)


def _cost_to(run: NDArray[np.float64], base: float, goal: float) -> float:
    there = np.flatnonzero(attained(run, base) >= goal)
    return float(run[there[0], 0]) if len(there) else float("inf")


def draw(problem: Problem, runs: dict[str, list[NDArray[np.float64]]], path: Path) -> None:
    """Hypervolume against cost with its interval, and attainment surfaces."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    from robustsearch.analysis import style  # type: ignore[import-not-found]

    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(9.5, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        colours = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
        most = statistics.mean(run[-1, 0] for name, found in runs.items() if "no stopping" in name for run in found)
        grid = np.geomspace(most / 50, most, 120)
        for (name, found), tint in zip(runs.items(), colours, strict=False):
            ours = "robustsearch" in name
            width, colour = (2.2, style.INK) if ours else (1.1, tint)
            curves = []
            for run in found:
                values = np.concatenate([[0.0], attained(run, problem.base)])
                curves.append(values[np.searchsorted(run[:, 0], grid, side="right")])
            stack = 100 * np.array(curves)
            ends = np.array([interval(column) for column in stack.T])
            left.plot(grid, stack.mean(axis=0), color=colour, lw=width, label=name)
            left.fill_between(grid, *ends.T, color=colour, alpha=0.15, lw=0)
            within = [run[run[:, 0] <= most, 1:3] for run in found]
            points = np.concatenate(within)
            sets = np.concatenate([np.full(len(run), number + 1) for number, run in enumerate(within)])
            surface = moocore.eaf(points, sets=sets, percentiles=[50])
            surface = surface[np.argsort(surface[:, 1])]
            right.step(surface[:, 1], -100 * surface[:, 0], where="post", color=colour, lw=width)
        left.set_xscale("log")
        left.set_xlim(most / 50, most)
        left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        left.xaxis.set_minor_locator(NullLocator())
        left.set(
            xlabel="cost (s of training and evaluation)",
            ylabel="normalised hypervolume (%)",
            title="mean of the searches, 95% interval",
        )
        right.set(xlabel="latency p50 (ms)", ylabel="robust accuracy (%)", title="reached by half of the searches")
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
    places = ", ".join(map(str, rungs(EPOCHS, ETA, GRACE)))
    print(
        f"{given.problem}: {given.trials} trials without stopping, {MORE} times as many with it; {given.seeds} seeds, "
        f"{WORKERS} workers, rungs at epochs {places}\n"
    )
    print(compare(problem, runs))
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"searchers-{given.problem}.png"
    draw(problem, runs, path)
    print(path)


if __name__ == "__main__":
    main()
