"""Run folders with numbers small enough to check by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from robustsearch.analysis.load import Run, load
from robustsearch.analysis.table import Tables
from robustsearch.events import EventLog
from robustsearch.recipe import Recipe
from robustsearch.results import write_trial

INFO = {
    "name": "by hand",
    "space": "lwta",
    "dataset": "digits",
    "epsilon": 0.1,
    "protocol": "standard",
    "epochs": 4,
    "trials": 4,
    "seed": 7,
    "command": "python -m robustsearch.run --space lwta --name 'by hand'",
    "device": "a processor",
    "versions": {"python": "3.11", "torch": "2.9"},
    "created": "2026-01-02T03:04:05+00:00",
}

MakeRow = Callable[..., dict[str, Any]]
MakeRun = Callable[..., Path]


def row(
    trial: str,
    epoch: int,
    robust: float | None,
    latency: float | None,
    recipe: Recipe | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """One row of the results; accuracies get an interval of 4 points either way, p95 is 1.2 times p50."""
    recipe = recipe or Recipe()
    values = {
        "run": "by hand",
        "trial": trial,
        "role": "search",
        "epoch": epoch,
        "state": "completed",
        "digest": recipe.digest,
        "recipe": recipe.to_json(),
        "n": 400,
        "engine": "onnxruntime",
        "threads": 1,
        "dataset": "digits",
        "split": "validation",
        "epsilon": 0.1,
        "protocol": "standard",
        "device": "a processor",
        **recipe.flat(),
    }
    if robust is not None and latency is not None:
        higher = {"natural": 0.3, "fgsm": 0.1, "pgd": 0.02, "cw": 0.2, "robust": 0.0}
        for name, more in higher.items():
            accuracy = robust + more
            values |= {name: accuracy, f"{name}_low": accuracy - 0.04, f"{name}_high": accuracy + 0.04}
        values |= {"latency_p50": latency, "latency_p95": 1.2 * latency}
    return values | fields


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Write a run folder: its rows, and what its `run.json` holds (None writes none)."""

    def make(rows: Sequence[Mapping[str, Any]], info: Mapping[str, Any] | None = INFO) -> Path:
        folder = tmp_path_factory.mktemp("run")
        if info is not None:
            (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
        for trial in dict.fromkeys(row["trial"] for row in rows):
            write_trial(folder / "results", trial, [row for row in rows if row["trial"] == trial])
        return folder

    return make


def hand_rows() -> list[dict[str, Any]]:
    """Three trials with two rungs, a baseline and a crash.

    The front is trial 0001 at epoch 4 (50% at 1 ms) and trial 0002 at epoch 4 (60% at 2 ms, masked). The baseline is
    the most accurate of all, so it would be on the front if it were a candidate.
    """
    lwta = Recipe.of({"lwta": {"units": 4, "gate": "mean"}})
    return [
        row("0001", 2, 0.30, 1.0, masked=None),
        row("0001", 4, 0.50, 1.0, masked=False),
        row("0002", 2, 0.40, 2.0, recipe=lwta),
        row("0002", 4, 0.60, 2.0, recipe=lwta, masked=True),
        row("0003", 2, 0.20, 4.0, recipe=Recipe.of({"training": {"lr": 0.01}}), blocks_kept=0.5),
        row("0003", 4, 0.55, 4.0, recipe=Recipe.of({"training": {"lr": 0.01}}), blocks_kept=0.5),
        row("0004", 0, None, None, state="crashed", reason="out of memory"),
        row("baseline", 4, 0.65, 5.0, role="baseline", masked=False),
    ]


@pytest.fixture(scope="session")
def hand_folder(make_run: MakeRun) -> Path:
    """The folder of a run with `hand_rows`."""
    return make_run(hand_rows())


@pytest.fixture(scope="session")
def hand_run(hand_folder: Path) -> Run:
    """The same, read."""
    return load(hand_folder)


@pytest.fixture(scope="session")
def make_row() -> MakeRow:
    """The builder of rows."""
    return row


@pytest.fixture(scope="session")
def tables_of(make_run: MakeRun) -> Callable[..., Tables]:
    """The tables of a run with these rows, asked for in this order; `ended` or not."""

    def make(rows: Sequence[Mapping[str, Any]], *, ended: bool = True) -> Tables:
        path = make_run(rows)
        log = EventLog(path / "events.jsonl")
        for row in rows:
            log.append("ask", row["trial"], recipe=json.loads(row["recipe"]))
        if ended:
            log.append("end")
        log.close()
        return Tables(load(path))

    return make
