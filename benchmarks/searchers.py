"""Searchers side by side, on equal trials: `python -m benchmarks.searchers [--problem table] [--seeds 20]`.

Every contender (`benchmarks.contenders`) has the same cost to spend, that of the searches that stop no trial, and the
same number of simulated workers. It is judged by the normalised hypervolume of what it has measured by then, and at a
quarter of it. Each simulated search is kept as a file of `--runs`, so that the command goes on where it was stopped.
Prints a Markdown table for each problem and draws `searchers.png`: hypervolume against cost, and the 50% attainment
surfaces (what half of the searches reach).
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from math import inf
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import optuna
from numpy.typing import NDArray

from benchmarks.contenders import CONTENDERS, ETA, WORKERS, Contender, search
from benchmarks.problems import GRACE, PROBLEMS, Problem
from robustsearch.pareto import normalised_hypervolume
from robustsearch.search.halving import rungs

MORE = 4
"""Searches that stop trials may ask for so many times the recipes of those that do not, within the same cost."""
OURS = ("robustsearch (TPE + ours)", "robustsearch (GP + ours)")
"""Contenders whose sampler `--sampler auto` may be."""
Run = NDArray[np.float64]
"""What `benchmarks.contenders.search` returns."""


def attained(run: Run, base: float) -> NDArray[np.float64]:
    """Normalised hypervolume after each report."""
    return np.array([normalised_hypervolume(run[: place + 1, 1:3], base) for place in range(len(run))])


def interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """95% percentile-bootstrap interval of the mean."""
    draws = np.random.default_rng(seed).choice(values, (4000, len(values))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def full_cost(runs: dict[str, list[Run]]) -> float:
    """What a search costs that stops no trial, on average, s."""
    return statistics.mean(run[-1, 0] for name, found in runs.items() if "no stopping" in name for run in found)


def compare(problem: Problem, runs: dict[str, list[Run]]) -> str:
    """The table, in Markdown."""
    full = full_cost(runs)
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


def curves(problem: Problem, found: list[Run], costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalised hypervolume of each search at each cost, `[searches, costs]`."""
    rows = []
    for run in found:
        values = np.concatenate([[0.0], attained(run, problem.base)])
        rows.append(values[np.searchsorted(run[:, 0], costs, side="right")])
    return np.array(rows)


def above(problem: Problem, runs: dict[str, list[Run]], ours: str) -> str:
    """Which peers are above ours at some cost so far that the intervals of the means do not overlap."""
    full = full_cost(runs)
    costs = np.geomspace(full / 50, full, 60)

    def intervals(name: str) -> NDArray[np.float64]:
        return np.array([interval(column) for column in curves(problem, runs[name], costs).T])

    highest, found = intervals(ours)[:, 1], []
    for name in runs:
        where = costs[intervals(name)[:, 0] > highest] / full
        if len(where):
            found.append(f"{name} (between {100 * where[0]:.0f} and {100 * where[-1]:.0f}% of the cost)")
    return f"Above {ours} outside the interval, at any of {len(costs)} costs: {', '.join(found) or 'nobody'}."


def _at(run: Run, base: float, cost: float) -> float:
    """Normalised hypervolume attained at a cost."""
    return normalised_hypervolume(run[run[:, 0] <= cost, 1:3], base)


def _cost_to(run: Run, base: float, goal: float) -> float:
    there = np.flatnonzero(attained(run, base) >= goal)
    return float(run[there[0], 0]) if len(there) else float("inf")


def draw(runs: dict[str, dict[str, list[Run]]], path: Path) -> None:
    """By problem: hypervolume against cost with its interval, and attainment surfaces."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from robustsearch.analysis import style  # type: ignore[import-not-found]

    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(9.5, 3.4 * len(runs) + 1), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(runs), 2, squeeze=False)
        for (name, found), (left, right) in zip(runs.items(), axes, strict=True):
            _draw_problem(PROBLEMS[name](), found, left, right)
        lines = {line.get_label(): line for left, _ in axes for line in left.get_lines()}
        figure.legend(handles=list(lines.values()), loc="outside lower center", ncols=3, fontsize=8)
        figure.savefig(path, dpi=150)


def _look(one: Contender) -> dict[str, Any]:
    """One colour a sampler, solid with our rule and dashed without; peers' rules have colours of their own."""
    from robustsearch.analysis import style

    samplers = {"random": style.MUTED, "tpe": style.FRONT, "gp": style.LINES[1], "nsga2": style.LINES[2]}
    peers = {"ray": style.LINES[3], "syne": style.LINES[4]}
    ours = "robustsearch" in one.name
    return {
        "color": peers.get(one.rule, samplers[one.sampler]),
        "ls": "--" if one.rule == "none" else "-",
        "lw": 2.2 if ours else 1.1,
        "zorder": 3 if ours else 2,
    }


def _draw_problem(problem: Problem, runs: dict[str, list[Run]], left: Any, right: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    from robustsearch.analysis import style

    looks = {one.name: _look(one) for one in CONTENDERS}
    most = full_cost(runs)
    grid = np.geomspace(most / 50, most, 120)
    for name, found in runs.items():
        look = looks[name]
        stack = 100 * curves(problem, found, grid)
        ends = np.array([interval(column) for column in stack.T])
        left.plot(grid, stack.mean(axis=0), label=name, **look)
        left.fill_between(grid, *ends.T, color=look["color"], alpha=0.12, lw=0)
        within = [run[run[:, 0] <= most, 1:3] for run in found]
        sets = np.concatenate([np.full(len(run), number + 1) for number, run in enumerate(within)])
        surface = moocore.eaf(np.concatenate(within), sets=sets, percentiles=[50])
        surface = surface[np.argsort(surface[:, 1])]
        right.step(surface[:, 1], -100 * surface[:, 0], where="post", **look)
    left.axvline(most / 4, color=style.INK, lw=0.8, ls=":", label="a quarter of the cost")
    left.set_xscale("log")
    left.set_xlim(most / 50, most)
    left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.xaxis.set_minor_locator(NullLocator())
    left.set_ylim(bottom=np.percentile(stack, 1))
    left.set(xlabel=f"cost ({problem.unit})", ylabel="normalised hypervolume (%)")
    left.set_title(f"{problem.name}: mean of {len(found)} searches, 95% interval")
    right.set(xlabel="latency p50 (ms)", ylabel="robust accuracy (%)")
    right.set_title(f"{problem.name}: reached by half of the searches")


def _one(job: tuple[str, str, int, int, float, Path]) -> None:
    problem, name, trials, seed, cost, file = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)
    (contender,) = (one for one in CONTENDERS if one.name == name)
    run = search(PROBLEMS[problem](), contender, trials if contender.rule == "none" else MORE * trials, seed, cost=cost)
    part = file.with_suffix(".part.npy")
    np.save(part, run)
    part.replace(file)


def compute(problem: str, chosen: Sequence[Contender], given: argparse.Namespace) -> dict[str, list[Run]]:
    """The runs of a problem by contender, those that stop no trial first, as the others have as much to spend."""
    folder = given.runs / f"{problem}-{given.trials}"
    folder.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[Run]] = {}
    for stopping in (False, True):
        part = [one for one in chosen if (one.rule != "none") == stopping]
        files = {
            (one.name, seed): folder / f"{one.sampler}-{one.rule}-{seed}.npy"
            for one in part
            for seed in range(given.seeds)
        }
        cost = full_cost(runs) if stopping else inf
        jobs = [
            (problem, name, given.trials, seed, cost, file) for (name, seed), file in files.items() if not file.exists()
        ]
        with ProcessPoolExecutor(given.processes) as pool:
            list(pool.map(_one, jobs))
        for (name, _), file in files.items():
            runs.setdefault(name, []).append(np.load(file))
    return runs


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=PROBLEMS, nargs="+", default=list(PROBLEMS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=20, metavar="N")
    parser.add_argument("--trials", type=int, default=60, metavar="N", help="recipes of a search that stops none")
    parser.add_argument("--without", nargs="*", default=[], metavar="WORD", help="leave out who has it in the name")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--runs", type=Path, default=Path("runs/searchers"), metavar="DIR", help="one file a search")
    parser.add_argument("--figure", type=Path, default=Path("docs/images/searchers.png"), metavar="FILE")
    given = parser.parse_args()
    if importlib.util.find_spec("syne_tune") is None:
        print("syne-tune is not installed: its MOASHA is left out")
        given.without.append("Syne")
    chosen = [one for one in CONTENDERS if not any(word in one.name for word in given.without)]
    runs = {}
    for name in given.problem:
        runs[name] = compute(name, chosen, given)
        places = ", ".join(map(str, rungs(PROBLEMS[name]().epochs, ETA, GRACE)))
        print(
            f"{name}: {given.trials} trials without stopping, at most {MORE} times as many with it; {given.seeds} "
            f"seeds, {WORKERS} workers, rungs at epochs {places}\n\n{compare(PROBLEMS[name](), runs[name])}\n",
            flush=True,
        )
        for ours in [one.name for one in chosen if one.name in OURS]:
            print(above(PROBLEMS[name](), runs[name], ours), flush=True)
        print()
    given.figure.parent.mkdir(parents=True, exist_ok=True)
    draw(runs, given.figure)
    print(given.figure)


if __name__ == "__main__":
    main()
