"""The numbers of a report, by hand and as the search said them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from robustsearch.analysis.load import load
from robustsearch.analysis.report_numbers import domain, failed, history, spent, states, varied
from robustsearch.recipe import Recipe
from robustsearch.search.ledger import Ledger
from robustsearch.search.live import Attained


def test_what_a_run_cost_by_hand(make_run, make_row) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = [
        ("baseline", 4, 0.2, 1.0, 10.0, 1.0),
        ("0000", 2, 0.4, 1.0, 4.0, 1.0),
        ("0001", 2, 0.6, 10**0.5, 6.0, 2.0),
        ("0000", 4, 0.5, 1.0, 8.0, 2.0),
    ]
    rows = [
        make_row(trial, epoch, robust, latency, train_s=train, eval_s=evaluation, time=start + timedelta(minutes=at))
        | {"role": "baseline" if trial == "baseline" else "search"}
        for at, (trial, epoch, robust, latency, train, evaluation) in enumerate(times)
    ]
    run = load(make_run(rows))
    steps = history(run.table)
    assert [step.seconds for step in steps] == [11, 16, 24, 29]
    assert [step.epochs for step in steps] == [4, 6, 8, 10]
    # Budgets from 1 to 10 ms, evenly in the logarithm: half of them are below 10**0.5 ms.
    assert [step.attained for step in steps] == pytest.approx([0, 0.4, 0.5, 0.55])
    assert spent(run.table, run.evaluations)["training"] == 10 + 8 + 6
    assert states(run.table) == {"completed": 3}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_last_attained_is_what_the_search_said(make_run, make_row, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [make_row("baseline", 1, 0.3, 1.0, role="baseline")]
    rows += [make_row(f"{i:04d}", 1, float(rng.uniform(0.1, 0.9)), float(rng.uniform(1, 12))) for i in range(30)]
    with Ledger(None) as ledger:
        for index, row in enumerate(rows):
            ledger.ask(row["trial"], row["role"], Recipe(), index, index)
            ledger.report(row["trial"], row)
        expected = Attained(ledger).hypervolume
    assert history(load(make_run(rows)).table)[-1].attained == pytest.approx(expected)


def test_what_varied_and_what_failed_by_hand(make_run, make_row) -> None:
    recipes = [Recipe.of({"lwta": {"units": units}, "training": {"lr": 0.01 * units}}) for units in (2, 4)]
    rows = [
        make_row("0000", 1, 0.5, 1.0, recipe=recipes[0]),
        make_row("0001", 1, 0.6, 1.0, recipe=recipes[1]),
        make_row("0002", 0, None, None, state="crashed", reason="out of memory"),
        make_row("0003", 0, None, None, state="crashed", reason="out of memory"),
        make_row("0004", 1, None, None, state="diverged"),
    ]
    run = load(make_run(rows))
    found = {field.name: domain(field) for field in varied(run.table)}
    assert found == {
        "activation": "lwta, relu",
        "lwta.units": "2, 4; off in 3 of 5 trials",
        "training.lr": "0.02, 0.04, 0.1",
    }
    assert failed(run.table) == [
        ("crashed", "out of memory", ["0002", "0003"]),
        ("diverged", "no reason recorded", ["0004"]),
    ]
