"""Optuna behind Ray's `Searcher`, and the ledger: real study, real files, no cluster."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from robustsearch import results
from robustsearch.errors import RunError, SpaceError
from robustsearch.recipe import Recipe
from robustsearch.runfolder import RunFolder
from robustsearch.search import spaces
from robustsearch.search.assemble import plain
from robustsearch.search.ledger import Ledger
from robustsearch.search.scheduler import RungScheduler
from robustsearch.search.searcher import (
    OptunaSearcher,
    best_values,
    choose_sampler,
    make_study,
    open_study,
    warm_start,
    warm_started,
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.write_info({})
    return folder


opened: list[Ledger] = []


@pytest.fixture(autouse=True)
def close_ledgers() -> Iterator[None]:
    yield
    while opened:
        opened.pop().close()


def open_ledger(folder: RunFolder, max_latency: float | None = None) -> Ledger:
    opened.append(Ledger(folder, max_latency=max_latency))
    return opened[-1]


def searcher(
    folder: RunFolder, trials: int = 6, sampler: str = "tpe", repeats: int = 0, max_latency: float | None = None
) -> tuple[OptunaSearcher, Ledger]:
    ledger = open_ledger(folder, max_latency)
    return (
        OptunaSearcher(
            spaces.find("lwta"),
            ledger,
            open_study(folder),
            baseline=plain(4),
            overrides={"training.epochs": 4},
            epsilon=0.1,
            sampler=sampler,
            trials=trials,
            repeats=repeats,
            seed=3,
        ),
        ledger,
    )


def row(epoch: int, robust: float, latency: float) -> dict[str, Any]:
    return {"epoch": epoch, "robust": robust, "latency_p50": latency}


def run_all(search: OptunaSearcher, ledger: Ledger, stop_after: int = 10**6) -> list[dict[str, Any]]:
    """Play the cluster, one trial at a time: trial i gets robust accuracy (i mod 7) / 10 and latency 10 - i."""
    configs = []
    for index in range(stop_after):
        config = search.suggest(f"ray{index}")
        if config == Searcher.FINISHED:
            break
        assert isinstance(config, dict)
        configs.append(config)
        place = list(ledger.entries).index(config["trial"])
        ledger.report(config["trial"], row(1, (place % 7) / 10, 10.0 - place))
        ledger.finish(config["trial"], "completed", epoch=4)
        search.on_trial_complete(f"ray{index}", {})
    return configs


def test_baseline_first_then_starts_then_the_sampler_until_enough(folder: RunFolder) -> None:
    search, ledger = searcher(folder)
    configs = run_all(search, ledger)
    assert [config["trial"] for config in configs] == ["baseline", "0000", "0001", "0002", "0003", "0004", "0005"]
    recipes = [Recipe.from_json(config["recipe"]) for config in configs]
    assert recipes[0] == plain(4)
    assert [recipe.lwta.gate for recipe in recipes[1:3] if recipe.lwta] == ["sample", "mean"]
    assert {recipe.training.epochs for recipe in recipes} == {4}
    assert len({recipe.digest for recipe in recipes}) == 7


def test_the_study_holds_both_values_and_opens_in_optuna_again(folder: RunFolder) -> None:
    search, ledger = searcher(folder)
    run_all(search, ledger)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder.study_file)))
    study = optuna.load_study(study_name="run", storage=storage)
    assert study.directions == [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE]
    assert study.metric_names == ["robust", "latency_p50"]
    assert [trial.values for trial in study.trials] == [[(i % 7) / 10, 10.0 - i] for i in range(1, 7)]
    assert [trial.user_attrs["trial"] for trial in study.trials] == [f"{i:04d}" for i in range(6)]


def test_diverged_and_crashed_trials_are_told_as_failures_with_a_row(folder: RunFolder) -> None:
    search, ledger = searcher(folder)
    search.suggest("b")
    for ray_id, state in (("r0", "diverged"), ("r1", "crashed")):
        config = search.suggest(ray_id)
        assert isinstance(config, dict)
        ledger.finish(config["trial"], state, "because", epoch=2)  # type: ignore[arg-type]
        search.on_trial_complete(ray_id, {})
    assert [trial.state for trial in search.study.trials][:2] == [TrialState.FAIL] * 2
    rows = {row["trial"]: row for row in results.read(folder.results).to_pylist()}
    assert {name: (row["state"], row["reason"]) for name, row in rows.items()} == {
        "0000": ("diverged", "because"),
        "0001": ("crashed", "because"),
    }
    assert rows["0000"]["epoch"] == 2
    assert all(row["robust"] is None for row in rows.values())


def test_a_trial_whose_worker_dies_as_it_takes_it_over_is_handed_out_again(folder: RunFolder) -> None:
    """Even where it is the last one: Tune asks no more once it has heard that there is nothing left."""
    search, ledger = searcher(folder)
    configs = [search.suggest("b"), *(search.suggest(f"r{number}") for number in range(6))]
    assert search.suggest("early") is None
    search.on_trial_complete("r5", error=True)
    assert search.suggest("again") == configs[-1]
    assert ledger.entries["0005"].state == "running"
    for ray_id in ("b", "r0", "r1", "r2", "r3", "r4", "again"):
        assert search.suggest("early") is None
        ledger.finish(search._names[ray_id], "completed", epoch=2)
        search.on_trial_complete(ray_id, {})
    assert search.suggest("late") == Searcher.FINISHED
    assert [trial.state for trial in search.study.trials] == [TrialState.FAIL] * 6  # without a rung
    search.on_trial_complete("r5", {})  # it was alive


def test_what_a_trial_that_has_ended_reports_stops_it_and_changes_nothing(folder: RunFolder) -> None:
    search, ledger = searcher(folder)
    scheduler = RungScheduler(ledger, eta=2, changed=lambda entry: pytest.fail("it was told"))
    config = search.suggest("b")
    ledger.finish("baseline", "completed", epoch=2)
    events = list(ledger.log.events)
    for ended in (None, "crashed"):
        row = {"epoch": 1, "robust": 0.5, "latency_p50": 1.0}
        result = {"rows": [row], "epoch": 1, "ended": ended, "reason": "because"}
        assert scheduler.on_trial_result(None, SimpleNamespace(config=config), result) == RungScheduler.STOP
    assert ledger.log.events == events


@pytest.mark.parametrize(
    "sampler", ["tpe", *(pytest.param(name, marks=pytest.mark.slow) for name in ("nsga2", "random"))]
)
def test_a_new_driver_goes_on_as_the_old_one_would_have(tmp_path: Path, sampler: str) -> None:
    """Cut between any two trials, and with one trial running, the recipes asked for are those of an uncut search."""
    whole_folder = RunFolder(tmp_path / "whole" / "run")
    whole_folder.write_info({})
    search, ledger = searcher(whole_folder, trials=8, sampler=sampler)
    whole = run_all(search, ledger)
    cut_folder = RunFolder(tmp_path / "cut" / "run")
    cut_folder.write_info({})
    seen = []
    for cut in (3, 1, 2):
        search, ledger = searcher(cut_folder, trials=8, sampler=sampler)
        seen += run_all(search, ledger, stop_after=cut)
        lost = search.suggest("lost")  # asked for, and then the driver dies
        assert isinstance(lost, dict)
        ledger.close()
    search, ledger = searcher(cut_folder, trials=8, sampler=sampler)
    seen += run_all(search, ledger)
    assert seen == whole
    assert [trial.state for trial in search.study.trials] == [TrialState.COMPLETE] * 8


def test_a_driver_that_died_between_log_and_study_is_reconciled(folder: RunFolder) -> None:
    search, ledger = searcher(folder)
    search.suggest("b")
    config = search.suggest("r0")
    assert isinstance(config, dict)
    ledger.report(config["trial"], row(1, 0.4, 2.0))
    ledger.on_end = lambda entry: None  # the driver dies after the next line is on disk, before the study hears of it
    ledger.finish(config["trial"], "stopped", "enough", epoch=1)
    search.study.ask()  # in the study, but the log never heard
    ledger.close()
    search, _ = searcher(folder)
    assert search.study.trials[0].values == [0.4, 2.0]
    assert search.study.trials[1].state == TrialState.FAIL


def test_a_rung_reported_twice_counts_once(folder: RunFolder) -> None:
    search, ledger = searcher(folder)
    search.suggest("b")
    assert ledger.report("baseline", row(1, 0.5, 1.0))
    assert not ledger.report("baseline", row(1, 0.6, 1.0))
    ledger.close()
    assert [found["robust"] for found in results.read(folder.results).to_pylist()] == [0.5]
    assert [found["robust"] for found in open_ledger(folder).entries["baseline"].rows] == [0.5]


def test_values_are_those_of_the_best_rung() -> None:
    rows = [row(1, 0.5, 3.0), row(2, 0.7, 4.0), row(4, 0.6, 2.0), {"epoch": 4}]
    assert best_values(rows) == [0.7, 4.0]
    assert best_values([row(1, math.nan, 1.0)]) is None
    assert best_values([]) is None


def test_auto_is_gp_for_few_trials_unless_most_settings_depend_on_others(tmp_path: Path) -> None:
    for name in ("lwta", "pni", "mix", "joint"):
        samples = spaces.find(name).sample(0.1, seed=0)
        assert choose_sampler(samples, 200) == "gp"
        assert choose_sampler(samples, 201) == "tpe"
    path = tmp_path / "branches.py"
    path.write_text(
        '"""One learning rate for each augmentation."""\nfrom robustsearch.recipe import Recipe, Training\n'
        "def suggest(trial, epsilon):\n"
        '    augment = trial.suggest_categorical("augment", [True, False])\n'
        '    lr = trial.suggest_float(f"lr_{augment}", 0.01, 0.1)\n'
        '    momentum = trial.suggest_float(f"momentum_{augment}", 0.5, 0.9)\n'
        "    return Recipe(training=Training(lr=lr, momentum=momentum, augment=augment))\n"
    )
    assert choose_sampler(spaces.find(str(path)).sample(0.1, seed=0), 12) == "tpe"


def test_a_warm_start_gives_the_sampler_what_an_earlier_run_learnt(tmp_path: Path) -> None:
    old = RunFolder(tmp_path / "old")
    old.write_info({})
    run_all(*searcher(old))
    new = RunFolder(tmp_path / "new")
    new.write_info({})
    study = open_study(new)
    samples = spaces.find("lwta").sample(0.1, seed=0)
    assert warm_start(study, old, samples) == 6
    search, ledger = searcher(new, trials=2)
    assert [trial.values for trial in search.study.trials[:6]] == [trial.values for trial in open_study(old).trials]
    configs = run_all(search, ledger)
    assert [config["trial"] for config in configs] == ["baseline", "0000", "0001"]
    assert ledger.entries["0000"].number == 6
    assert [trial.user_attrs["from"] for trial in warm_started(new)] == ["old"] * 6


def test_a_warm_start_from_another_kind_of_run_is_refused(tmp_path: Path) -> None:
    old, empty = RunFolder(tmp_path / "old"), RunFolder(tmp_path / "empty")
    for folder in (old, empty):
        folder.write_info({})
    run_all(*searcher(old))
    study = make_study("new")
    with pytest.raises(RunError, match="has no journal"):
        warm_start(study, RunFolder(tmp_path / "absent"), spaces.find("lwta").sample(0.1, seed=0))
    open_study(empty)
    with pytest.raises(RunError, match="completed trials"):
        warm_start(study, empty, spaces.find("lwta").sample(0.1, seed=0))
    other = tmp_path / "other.py"
    other.write_text(
        '"""Other gates."""\nfrom robustsearch.recipe import LWTA, Recipe\n'
        'def suggest(trial, epsilon): return Recipe(lwta=LWTA(gate=trial.suggest_categorical("gate", ["mean"])))\n'
    )
    with pytest.raises(SpaceError, match="'gate' differ"):
        warm_start(study, old, spaces.find(str(other)).sample(0.1, seed=0))
    assert not study.trials


@pytest.mark.slow
def test_optuna_dashboard_shows_the_study_while_the_search_runs(folder: RunFolder) -> None:
    """The dashboard's own application on the journal that the searcher is writing."""
    search, ledger = searcher(folder)
    run_all(search, ledger, stop_after=4)
    app = optuna_dashboard.wsgi(
        optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder.study_file)))
    )

    def get(path: str) -> Any:
        environment: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
        setup_testing_defaults(environment)
        status: list[str] = []
        body = b"".join(app(environment, lambda line, headers, *_: status.append(line)))
        assert status[0].startswith("200"), body
        return json.loads(body)

    (study,) = get("/api/studies")["study_summaries"]
    assert study["study_name"] == "run"
    shown = get(f"/api/studies/{study['study_id']}")
    assert [trial["state"] for trial in shown["trials"]] == ["Complete"] * 3 + ["Waiting"] * (len(shown["trials"]) - 3)
    assert shown["directions"] == ["maximize", "minimize"]
    assert [trial["values"] for trial in shown["trials"][:3]] == [[i / 10, 10.0 - i] for i in (1, 2, 3)]
