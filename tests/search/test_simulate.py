"""Simulated searches, with the real searcher, scheduler and ledger: bookkeeping, time, replay and racing."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from robustsearch import results
from robustsearch.events import EventLog, read
from robustsearch.recipe import Recipe
from robustsearch.runfolder import RunFolder
from robustsearch.search.assemble import make_scheduler, make_searcher
from robustsearch.search.halving import rungs
from robustsearch.search.ledger import Ledger
from robustsearch.search.live import Attained
from robustsearch.search.recorded import Recorded
from robustsearch.search.replay import replay
from robustsearch.search.searcher import make_study, open_study
from robustsearch.search.settings import Settings
from robustsearch.search.simulate import Curve, Moment, SimulatedTrial, simulate
from robustsearch.seeds import derive

EPOCHS = 8
SETTINGS = Settings("mix", trials=20, epochs=EPOCHS, sampler="random", repeats=0)


def curve(recipe: Recipe, seed: int) -> Curve:
    """A learning curve in closed form; robust accuracy is a function of the recipe, of its seed and of the epoch."""
    skill = 0.4 + 0.5 * recipe.mix.pgd + 0.01 * (derive(seed, recipe.digest) % 5 - 2)
    latency = 1.5 + derive(0, recipe.digest) % 8 / 2 + recipe.draws
    if recipe.mix.cw > 0.45:
        return Curve([], [3.0], ("diverged", "because", 3))
    found = [
        {"epoch": epoch, "robust": skill * epoch / EPOCHS, "latency_p50": latency, "n": 200} for epoch in (4, EPOCHS)
    ]
    return Curve(found, [4.0, 8.0])


def run(folder: RunFolder | None, settings: Settings, workers: int = 3, **options: Any) -> tuple[Ledger, list[Moment]]:
    ledger = Ledger(folder, max_latency=settings.max_latency)
    study = open_study(folder) if folder else make_study("simulated")
    searcher = make_searcher(settings, ledger, study, 0.1)
    scheduler = make_scheduler(settings, ledger)
    moments = list(simulate(searcher, scheduler, curve, workers=workers, **options))
    ledger.log.append("end")
    ledger.close()
    return ledger, moments


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.write_info({})
    return folder


def test_every_trial_ends_once_and_time_and_cost_add_up() -> None:
    ledger, moments = run(None, SETTINGS)
    assert len(ledger.searched) == 20
    assert ledger.ended == len(ledger.entries) == 21
    assert not ledger.running
    states = Counter(entry.state for entry in ledger.searched)
    assert states["diverged"]
    assert states["stopped"] > 2
    assert states["completed"] > 2
    assert all(one.time <= other.time for one, other in pairwise(moments))
    worked = sum({4: 4.0, EPOCHS: 8.0, 3: 3.0}[entry.trained] for entry in ledger.entries.values())
    assert sum(entry.trained for entry in ledger.entries.values()) == ledger.ended_epochs
    assert moments[-1].cost <= worked <= moments[-1].cost + 3.0  # a failure after the last report is not in a moment
    assert worked / 3 <= moments[-1].time <= worked


def test_one_worker_works_all_the_time() -> None:
    _, moments = run(None, SETTINGS, workers=1)
    assert all(moment.time == pytest.approx(moment.cost) for moment in moments)


def test_lost_workers_cost_time_and_change_nothing_else() -> None:
    whole, moments = run(None, SETTINGS, workers=1)
    lossy, later = run(None, SETTINGS, workers=1, losses=0.3, seed=1)
    assert [entry.rows[-1]["robust"] for entry in whole.searched if entry.rows and "robust" in entry.rows[-1]] == [
        entry.rows[-1]["robust"] for entry in lossy.searched if entry.rows and "robust" in entry.rows[-1]
    ]
    assert [entry.state for entry in whole.searched] == [entry.state for entry in lossy.searched]
    assert later[-1].cost > moments[-1].cost


@pytest.mark.parametrize(
    "sampler", ["tpe", *(pytest.param(name, marks=pytest.mark.slow) for name in ("random", "nsga2"))]
)
def test_a_log_replays_to_the_same_decisions(folder: RunFolder, sampler: str) -> None:
    settings = Settings("mix", trials=20, epochs=EPOCHS, sampler=sampler, repeats=4, max_latency=5.0)
    run(folder, settings)
    events, _ = read(folder.events_file)
    ledger = Ledger(None, max_latency=5.0)
    found = replay(
        events, make_searcher(settings, ledger, make_study("x"), 0.1), make_scheduler(settings, ledger), ledger
    )
    assert found.equal, found
    assert found.decisions == sum(event.kind in ("ask", "stop", "tell", "fail") for event in events) > 40
    assert any(event.kind == "ask" and event.data["role"] == "repeat" for event in events)


@pytest.mark.parametrize(
    ("other", "kind"), [({"seed": 1}, "ask"), ({"eta": 3}, "stop"), ({"scheduler": "none"}, "stop")]
)
def test_a_replay_under_other_settings_says_where_it_differs(other: Any, kind: str) -> None:
    events = run(None, SETTINGS)[0].log.events
    settings = Settings(**(vars(SETTINGS) | other))
    ledger = Ledger(None)
    searcher, scheduler = make_searcher(settings, ledger, make_study("x"), 0.1), make_scheduler(settings, ledger)
    found = replay(events, searcher, scheduler, ledger)
    assert not found.equal
    assert kind in {decision["kind"] for decision in (found.logged, found.made) if decision}


def test_a_driver_that_died_before_it_could_log_an_ask_is_replayed(folder: RunFolder) -> None:
    settings = Settings("mix", trials=6, epochs=EPOCHS, sampler="tpe", repeats=0)
    with Ledger(folder) as ledger:
        searcher = make_searcher(settings, ledger, open_study(folder), 0.1)
        searcher.suggest("a")
        searcher.suggest("b")
        searcher.study.ask()  # and then the driver dies: the study has a trial that the log has not
    run(folder, settings)
    events, _ = read(folder.events_file)
    ledger = Ledger(None)
    searcher, scheduler = make_searcher(settings, ledger, make_study("x"), 0.1), make_scheduler(settings, ledger)
    assert replay(events, searcher, scheduler, ledger).equal


@pytest.mark.slow
def test_tune_may_tell_a_searcher_late(folder: RunFolder) -> None:
    """Tune calls `on_trial_complete` after a while, and asks for other trials meanwhile: the log still replays."""
    settings = Settings("mix", trials=12, epochs=EPOCHS, sampler="tpe", repeats=0)
    with Ledger(folder) as ledger:
        searcher = make_searcher(settings, ledger, open_study(folder), 0.1)
        scheduler = make_scheduler(settings, ledger)
        late: list[str] = []
        for number in range(13):
            config = searcher.suggest(f"ray{number}")
            assert isinstance(config, dict)
            trial = SimulatedTrial(f"ray{number}", config, curve(Recipe.from_json(config["recipe"]), config["seed"]))
            while scheduler.on_trial_result(None, trial, trial.result()) == scheduler.CONTINUE:
                trial.place += 1
            late.append(trial.trial_id)
            if len(late) == 3:
                while late:
                    searcher.on_trial_complete(late.pop())
        ledger.log.append("end")
    events, _ = read(folder.events_file)
    ledger = Ledger(None)
    searcher, scheduler = make_searcher(settings, ledger, make_study("x"), 0.1), make_scheduler(settings, ledger)
    found = replay(events, searcher, scheduler, ledger)
    assert found.equal, found


def test_repeats_come_last_within_their_budget_and_only_where_membership_is_uncertain() -> None:
    settings = Settings("mix", trials=15, epochs=EPOCHS, sampler="random", repeats=6)
    ledger, _ = run(None, settings)
    repeats = [entry for entry in ledger.entries.values() if entry.role == "repeat"]
    assert 0 < len(repeats) <= 6
    order = list(ledger.entries)
    assert [name for name in order if "-s" in name] == order[-len(repeats) :]
    for entry in repeats:
        leader = ledger.entries[entry.name.split("-")[0]]
        assert (entry.recipe, entry.state) == (leader.recipe, "completed")
        assert entry.seed == leader.seed + int(entry.name[-1])
    assert max(Counter(entry.recipe.digest for entry in repeats).values()) <= 2
    assert not any(entry.role == "repeat" for entry in run(None, SETTINGS)[0].entries.values())


def test_a_settled_front_is_not_repeated() -> None:
    first: list[str] = []

    def clear(recipe: Recipe, seed: int) -> Curve:
        """The sampler's first recipe is fastest and most robust by far, from its last epoch on."""
        if not first and recipe.mix.pgd > 0:
            first.append(recipe.digest)
        best = recipe.digest in first
        rows = [
            {"epoch": epoch, "robust": 0.1 * epoch if best else 0.4, "latency_p50": 1.0 if best else 50.0, "n": 10**6}
            for epoch in (4, EPOCHS)
        ]
        return Curve(rows, [4.0, 8.0])

    ledger = Ledger(None)
    settings = Settings("mix", trials=6, epochs=EPOCHS, sampler="random", repeats=6, scheduler="none")
    searcher = make_searcher(settings, ledger, make_study("x"), 0.1)
    list(simulate(searcher, make_scheduler(settings, ledger), clear, workers=2))
    assert len(ledger.searched) == 6
    assert not any(entry.role == "repeat" for entry in ledger.entries.values())


@pytest.mark.slow
def test_a_limit_on_latency_stops_slow_trials_and_constrains_the_sampler(folder: RunFolder) -> None:
    settings = Settings("mix", trials=12, epochs=EPOCHS, sampler="tpe", repeats=0, max_latency=3.0)
    ledger, _ = run(folder, settings)
    slow = [entry for entry in ledger.searched if entry.rows and entry.rows[0].get("latency_p50", 0) > 3.0]
    assert slow
    assert {entry.reason for entry in slow} == {"slower than the limit of 3 ms"}
    study = open_study(folder)
    constraints = {trial.number: trial.constraints for trial in study.trials if trial.constraints}
    assert constraints
    for entry in ledger.searched:
        if entry.number in constraints:
            excess = constraints[entry.number]["latency_p50"]
            assert (excess > 0) == (entry in slow)
    rows = [row for row in results.read(folder.results).to_pylist() if row["latency_p50"]]
    assert [row["feasible"] for row in rows] == [row["latency_p50"] <= 3.0 for row in rows]


def test_what_was_attained_is_that_of_all_points() -> None:
    ledger, _ = run(None, SETTINGS)
    attained = Attained(ledger)
    base = ledger.entries["baseline"].rows[0]["latency_p50"]
    points = [(row["latency_p50"], row["robust"]) for entry in ledger.searched for row in entry.rows if "robust" in row]
    floor = 0.5 * max(robust for _, robust in points)
    steps = 4000
    total = 0.0
    for step in range(steps):
        budget = base * 10 ** ((step + 0.5) / steps)
        total += max((robust for latency, robust in points if latency <= budget and robust >= floor), default=0.0)
    assert attained.hypervolume == pytest.approx(total / steps, abs=1e-3)
    assert attained.epochs == ledger.ended_epochs


def test_recorded_trials_answer_for_themselves_and_their_neighbours(folder: RunFolder) -> None:
    run(folder, Settings("mix", trials=10, epochs=EPOCHS, sampler="random", repeats=0, scheduler="none"))
    rows = [row | {"train_s": float(row["epoch"])} for row in results.read(folder.results).to_pylist()]
    recorded = Recorded(rows, rungs(EPOCHS, 2))
    row = next(row for row in rows if row["role"] == "search" and row["epoch"] == EPOCHS)
    recipe = Recipe.from_json(row["recipe"])
    found = recorded.curve(recipe)
    assert found.rows[-1]["robust"] == row["robust"]
    assert list(found.seconds) == [4.0, 8.0]
    assert recorded.misses == 0
    near = recipe.replace(**{"training.lr": recipe.training.lr * 1.0001})
    assert recorded.curve(near) is found
    assert recorded.misses == 1


@pytest.mark.slow
def test_a_record_that_ends_early_fails_where_it_ends(folder: RunFolder) -> None:
    ledger, _ = run(folder, SETTINGS)
    recorded = Recorded(results.read(folder.results).to_pylist(), rungs(EPOCHS, 2))
    stopped = next(entry for entry in ledger.searched if entry.state == "stopped")
    assert recorded.curve(stopped.recipe).failed == ("stopped", "was not trained any further", 4)


@pytest.mark.slow
def test_a_log_in_memory_holds_what_one_in_a_file_does(folder: RunFolder) -> None:
    on_disk, _ = run(folder, SETTINGS)
    in_memory, _ = run(None, SETTINGS)
    assert isinstance(in_memory.log, EventLog)
    assert [(e.kind, e.trial, e.data) for e in in_memory.log.events] == [
        (e.kind, e.trial, e.data) for e in on_disk.log.events
    ]
    again = Ledger.of(read(folder.events_file)[0])
    assert [entry.state for entry in again.entries.values()] == [entry.state for entry in on_disk.entries.values()]
    assert math.isclose(again.ended_epochs, on_disk.ended_epochs)
