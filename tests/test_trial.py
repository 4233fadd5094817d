"""One trial: rows, checkpoints, resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robustsearch.data import Dataset
from robustsearch.errors import TrialError
from robustsearch.recipe import IBP, LWTA, PNI, Attack, Mix, Model, Recipe, Training
from robustsearch.results import COLUMNS
from robustsearch.runfolder import network_file
from robustsearch.trial import Plan, Trial, run_trial

RECIPE = Recipe(
    model=Model(depth=10),
    lwta=LWTA(ibp=IBP()),
    pni=PNI(),
    mix=Mix(clean=0.2, noise=0.2, fgsm=0.2, pgd=0.2, cw=0.2),
    attack=Attack(steps=2, step=0.05, warmup=0.5),
    training=Training(epochs=4, batch_size=40),
    draws=2,
)
TIMES = {"train_s", "eval_s", "latency_s", "engine_build_s", "latency_p50", "latency_p95", "throughput"}


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def run(digits: Dataset, plan: Plan, checkpoint: Path | None = None, recipe: Recipe = RECIPE) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    run_trial(recipe, 7, lambda row: rows.append(dict(row)), dataset=digits, plan=plan, checkpoint=checkpoint)
    return rows


@pytest.fixture(scope="module")
def whole(digits: Dataset, plan: Plan) -> Trial:
    """The uninterrupted trial, at its end; only to be looked at."""
    trial = Trial(RECIPE, 7, digits, plan)
    while not trial.done:
        trial.advance()
    return trial


def test_a_row_at_each_rung_and_at_the_end_with_columns_of_the_results(whole: Trial) -> None:
    rows = whole.rows
    assert [row["epoch"] for row in rows] == [1, 2, 4]
    for row in rows:
        assert row.keys() <= COLUMNS.keys()
        assert all(row[name] is not None for name in row.keys() - {"cw_norm", "engine_reason"})
        assert 0 <= row["robust"] <= min(row["natural"], row["fgsm"], row["pgd"]) <= 1
        assert row["latency_p95"] >= row["latency_p50"] > 0
        assert row["split"] == "validation"
        assert row["engine"] == "onnxruntime"
        assert row["engine_reason"].startswith("onnxruntime-kernel: ")  # weights with noise keep gates out of it


@pytest.mark.slow
def test_rungs_change_nothing_in_the_training(digits: Dataset, plan: Plan, whole: Trial) -> None:
    once = run(digits, dataclasses.replace(plan, rungs=()))
    assert untimed(once) == untimed(whole.rows)[-1:]


@pytest.mark.parametrize(
    "killed_after", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]
)
def test_resumed_after_any_epoch_it_is_the_uninterrupted_trial_bit_for_bit(
    digits: Dataset, plan: Plan, whole: Trial, tmp_path: Path, killed_after: int
) -> None:
    first = Trial(RECIPE, 7, digits, plan)
    for _ in range(killed_after):
        first.advance()
    first.save(tmp_path / "checkpoint.pt")
    resumed = Trial(RECIPE, 7, digits, plan)
    assert resumed.load(tmp_path / "checkpoint.pt")
    assert resumed.epoch == killed_after
    while not resumed.done:
        resumed.advance()
    assert untimed(resumed.rows) == untimed(whole.rows)
    assert resumed.losses == whole.losses
    assert_same(resumed._trainer.state(), whole._trainer.state())


def assert_same(one: Any, other: Any, where: str = "state") -> None:
    """Weights, momenta, generators, counters: the same bits at every place of a nested state."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_same(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        assert one == other, where


PGD_ONLY = {"clean": 0.0, "noise": 0.0, "fgsm": 0.0, "pgd": 1.0, "cw": 0.0}
OTHERS = {
    "trades, awp": {
        "lwta": None,
        "pni": None,
        "draws": 1,
        "mix": PGD_ONLY,
        "training.trades": 6.0,
        "training.awp": 0.01,
    },
    "fgsm-rs, watched": {
        "lwta": None,
        "draws": 1,
        "mix": PGD_ONLY | {"pgd": 0.0, "fgsm_rs": 1.0},
        "training.patience": 9,
    },
    "smoothing, adamw": {
        "lwta": None,
        "pni": None,
        "smoothing": {},
        "training.optimizer": "adamw",
        "training.lr": 0.001,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS.keys())
def test_every_kind_of_training_resumes_bit_for_bit(
    digits: Dataset, plan: Plan, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Saved after every epoch, and each time gone on with in a new process's place."""
    recipe = RECIPE.replace(**{"training.epochs": 3, **change})
    plan = dataclasses.replace(plan, rungs=())
    whole = Trial(recipe, 7, digits, plan)
    seen = []
    while not whole.done:
        whole.advance()
        seen.append(whole.losses)
    for epoch in range(3):
        trial = Trial(recipe, 7, digits, plan)
        assert trial.load(tmp_path / "checkpoint.pt") == (epoch > 0)
        trial.advance()
        trial.save(tmp_path / "checkpoint.pt")
        assert trial.losses == seen[epoch]
    assert untimed(trial.rows) == untimed(whole.rows)
    assert_same(trial._trainer.state(), whole._trainer.state())


def test_a_finished_trial_reports_its_rungs_again_and_trains_no_more(
    digits: Dataset, plan: Plan, whole: Trial, tmp_path: Path
) -> None:
    whole.save(tmp_path / "checkpoint.pt")
    assert run(digits, plan, tmp_path / "checkpoint.pt") == whole.rows


def flipped(content: bytes) -> bytes:
    """A weight with one bit flipped: a file that torch reads without a word."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x40]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [lambda content: content[:1000], flipped, lambda content: b"\0" * len(content)])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    digits: Dataset, plan: Plan, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path, plan = tmp_path / "checkpoint.pt", dataclasses.replace(plan, rungs=())
    trial = Trial(RECIPE, 7, digits, plan)
    for _ in range(2):
        trial.advance()
        trial.save(path)
    path.write_bytes(damage(path.read_bytes()))
    resumed = Trial(RECIPE, 7, digits, plan)
    assert resumed.load(path)
    assert resumed.epoch == 1
    resumed.advance()
    resumed.save(path)
    previous = Trial(RECIPE, 7, digits, plan)
    path.write_bytes(b"")
    assert previous.load(path)
    assert previous.epoch == 1, "the good one must not make way for the damaged one"
    path.with_name("checkpoint.pt.previous").write_bytes(b"")
    assert not Trial(RECIPE, 7, digits, plan).load(path)


def test_another_trial_s_checkpoint_is_refused(digits: Dataset, plan: Plan, tmp_path: Path) -> None:
    trial = Trial(RECIPE, 7, digits, plan)
    trial.save(tmp_path / "checkpoint.pt")
    with pytest.raises(TrialError, match="own recipe and seed"):
        Trial(RECIPE, 8, digits, plan).load(tmp_path / "checkpoint.pt")


def test_a_checkpoint_holds_no_pickled_code(digits: Dataset, plan: Plan, tmp_path: Path) -> None:
    trial = Trial(RECIPE, 7, digits, plan)
    trial.advance()
    trial.save(tmp_path / "checkpoint.pt")
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["rows"] == trial.rows


WATCHED = RECIPE.replace(
    **{"training.epochs": 5, "mix": {"clean": 0.2, "noise": 0, "fgsm": 0, "pgd": 0, "cw": 0, "fgsm_rs": 0.8}}
)


@pytest.mark.slow
def test_early_stopping_goes_back_to_the_best_epoch_and_resumes_bit_for_bit(
    digits: Dataset, plan: Plan, tmp_path: Path
) -> None:
    """Against the same training without an early end, whose accuracies say where patience 1 ends."""
    plan = dataclasses.replace(plan, rungs=(1,))
    full = Trial(WATCHED, 7, digits, plan)
    seen, networks = [], []
    while not full.done:
        full.advance()
        seen.append(full.losses["pgd_accuracy"])
        networks.append({name: value.clone() for name, value in full.network.state_dict().items()})
    assert full.ended is None
    assert full.epoch == 5
    end = next(epoch for epoch in range(2, 6) if seen[epoch - 1] <= max(seen[: epoch - 1]))
    best = end - 1

    path = tmp_path / "checkpoint.pt"
    patient = WATCHED.replace(**{"training.patience": 1})
    whole = Trial(patient, 7, digits, plan)
    while not whole.done:
        whole.advance()
        if whole.epoch == best and not whole.done:
            whole.save(path)
    assert whole.epoch == best
    assert whole.ended is not None
    assert whole.ended.endswith(f"for 1 epochs; back to epoch {best}")
    assert [row["epoch"] for row in whole.rows] == sorted({1, best})

    rows: list[dict[str, Any]] = []
    run_trial(patient, 7, lambda row: rows.append(dict(row)), dataset=digits, plan=plan, checkpoint=path)
    assert untimed(rows) == untimed(whole.rows)
    ended = Trial(patient, 7, digits, plan)
    assert ended.load(path)
    assert (ended.ended, ended.done, ended.epoch) == (whole.ended, True, best)
    saved = torch.load(network_file(path, best), weights_only=True)["state"]
    for name, value in networks[best - 1].items():
        for network in (whole.network.state_dict(), ended.network.state_dict(), saved):
            assert torch.equal(value, network[name]), name


@pytest.mark.slow
def test_a_watch_changes_nothing_in_the_training(digits: Dataset, plan: Plan) -> None:
    plan = dataclasses.replace(plan, rungs=())
    recipe = RECIPE.replace(**{"training.epochs": 2})
    watched = recipe.replace(**{"training.patience": 9})
    assert untimed(run(digits, plan, recipe=recipe)) == untimed(run(digits, plan, recipe=watched))
