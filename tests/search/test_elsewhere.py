"""Trials logged elsewhere: what MLflow's own reader finds, and what is said where a service cannot be had."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from ray.tune.experiment import Trial

from robustsearch.data import Dataset
from robustsearch.errors import UserError
from robustsearch.recipe import LWTA, Model, Recipe, Training
from robustsearch.runfolder import RunFolder
from robustsearch.search import elsewhere
from robustsearch.search.ledger import Ledger
from robustsearch.search.listed import ListedSearcher
from robustsearch.search.worker import Worker
from robustsearch.trial import Plan

RECIPE = Recipe(model=Model(depth=10), lwta=LWTA(units=4), training=Training(epochs=2, batch_size=40))


@pytest.mark.slow
@pytest.mark.timeout(300)  # MLflow makes its database table by table
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of MLflow
def test_mlflow_holds_settings_losses_and_rungs(
    digits: Dataset, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "run")
    folder.write_info({})
    elsewhere.check("mlflow")
    (callback,) = elsewhere.callbacks("mlflow", folder)
    callback.setup()
    with Ledger(folder) as ledger:
        config = ListedSearcher({"row": RECIPE}, ledger, seeds=1, seed=0).suggest("ray")
    trial = Trial("Worker", config=config, stub=True)
    callback.log_trial_start(trial)
    worker = Worker.__new__(Worker)
    worker.setup(config, place=folder.place_anywhere, dataset=digits, plan=plan, threads=1)
    results = []
    for iteration in (1, 2):
        results.append(worker.step())
        callback.log_trial_result(iteration, trial, results[-1] | {"training_iteration": iteration})
    worker.cleanup()
    callback.log_trial_end(trial)
    client = mlflow.tracking.MlflowClient(f"sqlite:///{folder.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("run")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["trial"] == "row-s0"
    assert run.data.params["settings/lwta.units"] == "4"
    assert "settings/pni.alpha" not in run.data.params
    rows = results[-1]["rows"]
    for name in ("robust", "latency_p50", "natural", "macs"):
        history = client.get_metric_history(run.info.run_id, name)
        assert [(point.step, point.value) for point in history] == [(row["epoch"], row[name]) for row in rows]
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.value for point in losses] == pytest.approx([result["train/loss"] for result in results])


def test_nothing_is_logged_where_nothing_was_asked_for(tmp_path: Path) -> None:
    elsewhere.check(None)
    assert elsewhere.callbacks(None, RunFolder(tmp_path)) == []


@pytest.mark.parametrize(
    ("service", "installed", "rule"),
    [
        ("aim", True, r"must be one of mlflow, wandb, but got 'aim'"),
        ("mlflow", False, r"not installed: pip install 'robustsearch\[mlflow\]'"),
        ("wandb", False, r"not installed: pip install 'robustsearch\[wandb\]'"),
    ],
)
def test_what_cannot_be_had_is_said_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, service: str, installed: bool, rule: str
) -> None:
    if not installed:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == service else find(name))
    with pytest.raises(UserError, match=rule):
        elsewhere.check(service)


def test_weights_and_biases_needs_a_login_or_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UserError, match="needs a login"):
        elsewhere.check("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    elsewhere.check("wandb")
