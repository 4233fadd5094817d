"""The command, as a user runs it: searches end to end on a real local cluster, kills, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robustsearch import results
from robustsearch.errors import RunError
from robustsearch.recipe import Recipe
from robustsearch.replay import main as replay_main
from robustsearch.results import SCHEMA
from robustsearch.run import main
from robustsearch.runfolder import RunFolder

COMMAND = [sys.executable, "-m", "robustsearch.run"]
SMALL = '''
"""A small network: units, gate, draws."""
from robustsearch.recipe import LWTA, Attack, Model, Recipe


def suggest(trial, epsilon):
    gate = trial.suggest_categorical("gate", ["sample", "mean"])
    return Recipe(
        model=Model(depth=10),
        lwta=LWTA(units=trial.suggest_categorical("units", [2, 4]), gate=gate),
        attack=Attack(epsilon=epsilon, step=epsilon, steps=trial.suggest_int("steps", 1, 3)),
        draws=trial.suggest_int("draws", 1, 4) if gate == "sample" else 1,
    )
'''


def run(*arguments: str, cwd: Path, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder to work in, with a space of the user's own."""
    (tmp_path / "small.py").write_text(SMALL)
    return tmp_path


def finished(folder: Path) -> int:
    path = folder / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return sum('"kind": "tell"' in line or '"kind": "stop"' in line for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_half_way_and_resumed_every_trial_is_there_once(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small)
    small_ones = ["--space", "small.py", "--fraction", "0.3", "--epochs", "4", "--grace", "2"]
    arguments = [*small_ones, "--trials", "4", "--name", "killed", "--final-images", "12"]
    folder = small / "runs" / "killed"
    driver = subprocess.Popen(
        [*COMMAND, *arguments], cwd=small, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 150
    while finished(folder) < 2 and time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.05)
    assert driver.poll() is None, "the search ended before it could be killed"
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    before = results.read(folder / "results").to_pylist()
    assert 2 <= finished(folder) < 5
    assert main(["--space", "small.py", "--name", "killed"]) == 2
    assert "holds a run" in capsys.readouterr().err
    resumed = run("--resume", "--name", "killed", cwd=small, timeout=400)
    assert (resumed.returncode, resumed.stderr) == (0, "")
    for words in ("Pareto front of killed", "WRN-34-1, ReLU", "Run folder: runs/killed", "done", "left"):
        assert words in resumed.stdout
    frame = pd.read_parquet(folder / "results")
    assert not frame.duplicated(["trial", "epoch"]).any()
    trials = set(frame["trial"])
    assert {name for name in trials if "-s" not in name} == {"0000", "0001", "0002", "0003", "baseline"}
    repeats = frame.loc[frame["role"] == "repeat"]
    assert set(repeats["trial"]) == {name for name in trials if "-s" in name}
    assert len(set(repeats["trial"])) <= 1  # a third of four
    assert (repeats["seed"] == 1).all()
    assert set(frame["state"]) <= {"completed", "stopped"}
    assert frame.loc[frame["state"] == "completed"].groupby("trial")["epoch"].max().eq(4).all()
    after = {(row["trial"], row["epoch"]): row["robust"] for row in frame.to_dict("records")}
    assert all(after[row["trial"], row["epoch"]] == row["robust"] for row in before)
    check_what_a_search_leaves(folder, frame, resumed.stdout)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    asked = [event["trial"] for event in events if event["kind"] == "ask"]
    assert sorted(asked) == sorted(set(asked))
    assert replay_main([str(folder)]) == 0
    assert "every one made again as logged" in capsys.readouterr().out
    assert replay_main([str(folder), "--sampler", "random", "--scheduler", "none"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[:2] for line in said.splitlines()[:2]] == [["as", "run"], ["simulated", "4"]]
    once_more = run("--resume", "--name", "killed", cwd=small)
    assert once_more.returncode == 0
    assert "killed is complete" in once_more.stdout
    assert len((folder / "events.jsonl").read_text().splitlines()) == len(events)
    assert pd.read_parquet(folder / "results").equals(frame)


def check_what_a_search_leaves(folder: Path, frame: pd.DataFrame, said: str) -> None:
    """Every part of the run folder of `test_killed_half_way_and_resumed_every_trial_is_there_once`, when it is done."""
    assert list(frame.columns) == SCHEMA.names
    assert (frame[["robust", "natural", "fgsm", "pgd", "cw"]] >= 0).all().all()
    assert (frame["latency_p50"] > 0).all()
    assert (frame["robust_low"] <= frame["robust"]).all()
    assert (frame["n"] == 90).all()
    assert all(
        Recipe.from_json(text).digest == digest for text, digest in zip(frame["recipe"], frame["digest"], strict=True)
    )
    for suffix in ("png", "svg", "pdf", "html"):
        assert (folder / "figures" / f"pareto.{suffix}").stat().st_size > 10_000
    examined = pd.read_parquet(folder / "evaluations")
    assert len(examined) >= 1
    assert examined["masked"].notna().all()
    assert set(examined["protocol"]) == {"full"}
    assert set(examined["n"]) == {12}
    info = json.loads((folder / "run.json").read_text())
    assert (info["space"], info["trials"], info["dataset"]) == ("small.py", 4, "digits")
    assert {"torch", "ray", "optuna", "python", "robustsearch"} <= info["versions"].keys()
    for trial, rows in frame.groupby("trial"):
        assert (folder / "trials" / trial / "checkpoint.pt").is_file()
        board = EventAccumulator(str(folder / "trials" / trial)).Reload()
        tags = board.Tags()["scalars"]
        assert {"objective/robust", "objective/latency_p50", "objective/cw", "train/loss"} <= set(tags)
        shown = board.Scalars("objective/robust")[-1]
        assert shown.step == rows["epoch"].max()
        assert shown.value == pytest.approx(float(rows.loc[rows["epoch"] == shown.step, "robust"].iloc[0]))
        assert "_hparams_/session_start_info" in board.summary_metadata
    board = EventAccumulator(str(folder / "trials" / "search")).Reload()
    attained = [event.value for event in board.Scalars("search/hypervolume")]
    assert attained == sorted(attained)
    assert f"Attained {100 * attained[-1]:.1f}% robust accuracy" in said


CRASHING = (
    SMALL.replace("suggest(trial, epsilon):", "suggest(trial, epsilon):\n    lr = [0.05, 10.0][trial.number % 2]")
    .replace(
        "model=Model(depth=10),",
        "model=Model(depth=10), training=Training(lr=lr, weight_decay=1.0, schedule='constant'),",
    )
    .replace("Recipe\n", "Recipe, Training\n")
)


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_file_of_the_user_s_and_a_recipe_that_diverges(tmp_path: Path) -> None:
    """A learning rate of 10 ends in NaN within a few epochs: a row with its reason, not the end of the search."""
    (tmp_path / "small.py").write_text(CRASHING)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (400, 8, 8, 3), dtype=np.uint8), np.arange(400) % 4
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images[:40], y_test=labels[:40])
    done = run(
        *("--space", "small.py", "--dataset", "own.npz", "--trials", "2", "--epochs", "6", "--scheduler", "none"),
        *("--name", "own", "--concurrency", "1", "--protocol", "report", "--final-images", "0"),
        cwd=tmp_path,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    frame = pd.read_parquet(tmp_path / "runs" / "own" / "results")
    assert set(frame.loc[frame["trial"] == "0000", "state"]) == {"completed"}
    lost = frame.loc[frame["trial"] == "0001"]
    assert set(lost["state"]) == {"diverged"}
    assert "must stay finite" in lost["reason"].iloc[-1]
    assert lost["robust"].isna().iloc[-1]
    measured = frame.dropna(subset="robust")
    assert set(measured["epsilon"]) == {0.3}
    assert set(measured["dataset"]) == {"own.npz"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--space", "mix3.py"), ("must sum to 1", "1.5")),
        (("--space", "lwta", "--trials", "many"), ("--trials", "'many'")),
        (("--space", "lwta", "--storage", "a-file"), ("writable", "a-file")),
    ],
)
def test_bad_input_ends_before_the_first_trial_with_code_2(
    tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """As a process of its own; `tests/docs/test_docs_mistakes.py` has many more, within one."""
    (tmp_path / "a-file").touch()
    head = '"""Wrong."""\nfrom robustsearch.recipe import *\ndef suggest(trial, epsilon):\n    return '
    (tmp_path / "mix3.py").write_text(head + "Recipe(mix=Mix(clean=1))")
    before = sorted(tmp_path.rglob("*"))
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--gpus-per-trial", "512", "at most the GPUs there are"),
        ("--cpus-per-trial", "4096", "at most the CPUs there are"),
    ],
)
def test_more_than_the_cluster_has_ends_before_the_first_trial(
    tmp_path: Path, option: str, value: str, words: str
) -> None:
    done = run("--space", "lwta", option, value, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert f"got {value}" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_is_not_resumed_with_other_settings(tmp_path: Path) -> None:
    from dataclasses import asdict

    from robustsearch.search.settings import Settings

    RunFolder(tmp_path / "runs" / "was").write_info({"settings": asdict(Settings("lwta", trials=5))})
    done = run("--resume", "--name", "was", "--space", "lwta", "--trials", "6", cwd=tmp_path)
    assert done.returncode == 2
    assert "as it was set, with --trials 5, but got 6" in done.stderr


def test_interrupted_before_there_is_a_run_there_is_nothing_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    for where in ("robustsearch.search.settings.settings_of", "robustsearch.search.tuner.search"):
        with monkeypatch.context() as patch:
            patch.setattr(where, interrupt)
            assert main(["--space", "lwta", "--name", "new"]) == 130
        assert capsys.readouterr().err == "\ninterrupted\n"
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="the run folder must be writable"), RunFolder(tmp_path / "file" / "x").locked():
        pass


def test_two_drivers_cannot_work_in_one_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_info({})
    with folder.locked(), pytest.raises(RunError, match="only one driver"), folder.locked():
        pass
    with folder.locked():
        pass


def test_help_fits_a_screen(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) <= 45  # one line an option
    assert max(map(len, lines)) <= 88
