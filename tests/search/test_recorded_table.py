"""The recorded table in the repository: whole, true to its grid, and good for a simulated search."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import optuna
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks are no part of the package

from benchmarks import contenders, problems, searchers  # noqa: E402
from benchmarks.recorded import grid  # noqa: E402
from robustsearch.recipe import Recipe  # noqa: E402
from robustsearch.search.halving import rungs  # noqa: E402
from robustsearch.search.recorded import Recorded  # noqa: E402


def test_every_recipe_of_the_grid_is_there_with_both_objectives() -> None:
    table = pq.read_table(problems.TABLE)
    rows = table.to_pylist()
    measured = {(row["digest"], row["epoch"]) for row in rows if row["robust"] is not None}
    recorded = {Recipe.from_json(row["recipe"]) for row in rows}
    recipes = grid.recipes(problems.EPSILON)
    assert len(recipes) == 320
    assert {recipe.to_json() for recipe in recorded} == {recipe.to_json() for recipe in recipes}
    assert len(measured) >= 300 * len(grid.MEASURED)
    assert {row["protocol"] for row in rows} == {"quick"}
    latencies = np.array([row["latency_p50"] for row in rows if row["robust"] is not None])
    assert (latencies > 0).all()
    assert problems.TABLE.stat().st_size < 4e6


def test_a_search_on_the_table_meets_only_what_was_recorded() -> None:
    recorded = Recorded(pq.read_table(problems.TABLE).to_pylist(), rungs(grid.EPOCHS, contenders.ETA, problems.GRACE))
    for recipe in grid.recipes(problems.EPSILON)[::17]:
        recorded.curve(recipe)
    assert recorded.misses == 0


@pytest.mark.filterwarnings("ignore:BruteForceSampler is experimental")
def test_settings_that_depend_on_others_make_the_same_recipes() -> None:
    found: list[str] = []
    study = optuna.create_study(sampler=optuna.samplers.BruteForceSampler())
    study.optimize(lambda trial: float(found.append(grid.suggest_by_conditions(trial).digest) or 0))
    assert sorted(found) == sorted(recipe.digest for recipe in grid.recipes())


@pytest.mark.parametrize(
    ("theirs", "who"), [(0.5, "a peer, no stopping (between 8 and 100% of the cost)"), (0.3, "nobody")]
)
def test_who_is_above_ours(theirs: float, who: str) -> None:
    problem = problems.PROBLEMS["zdt1"]()
    runs = {
        name: [np.array([[cost, -robust, 2.0, 0] for cost in (8.0, 100.0)]) for _ in range(3)]
        for name, robust in {"a peer, no stopping": theirs, "ours": 0.4}.items()
    }
    assert searchers.above(problem, runs, "ours").endswith(f"at any of 60 costs: {who}.")


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_stopping_saves_cost_on_every_problem(name: str) -> None:
    problem = problems.PROBLEMS[name]()
    full = contenders.search(problem, contenders.Contender("", "random", "none"), 12, seed=0)
    stopped = contenders.search(problem, contenders.Contender("", "random", "ours"), 12, seed=0)
    assert stopped[-1, 0] < 0.95 * full[-1, 0]  # there is one rung before the end, half-way
    assert len(np.unique(stopped[:, 3])) == len(np.unique(full[:, 3])) == 12
    values = searchers.attained(full, problem.base)
    assert (np.diff(values) >= 0).all()
    assert 0 < values[-1] < 1
