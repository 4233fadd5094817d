"""Reading run folders: what is there, and what is said of folders that are no runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustsearch.analysis.load import Run, load
from robustsearch.errors import RunError


def test_a_run_is_its_description_and_all_its_rows(hand_run: Run) -> None:
    assert hand_run.name == "by hand"
    assert hand_run.info["seed"] == 7
    assert hand_run.table["trial"].to_pylist() == [
        *("0001", "0001", "0002", "0002", "0003", "0003", "0004", "baseline")
    ]


def test_a_run_without_a_name_is_called_as_its_folder(make_run, make_row) -> None:
    folder = make_run([make_row("0001", 1, 0.5, 1.0)], info={})
    assert load(folder).name == folder.name


@pytest.mark.parametrize(
    ("files", "rule"),
    [
        ({}, "with a run.json"),
        ({"run.json": "{"}, "with a run.json, a JSON object, but .* is damaged"),
        ({"run.json": "[]"}, "with a run.json, a JSON object, but .* holds no object"),
        ({"run.json": b"\xff"}, "with a run.json, a JSON object, but .* is damaged"),
        ({"run.json": "{}"}, "has none yet"),
        ({"run.json": "{}", "results/.0001.part": "torn"}, "has none yet"),
        ({"run.json": "{}", "results/0001.parquet": "no Parquet"}, "must be Parquet files"),
    ],
)
def test_what_is_no_run_is_named(tmp_path: Path, files: dict[str, str | bytes], rule: str) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(RunError, match=rule) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_no_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="must be a folder"):
        load(tmp_path / "absent")


@pytest.mark.parametrize("times", [{"latency_p50": 0.0}, {"latency_p50": -1.0}, {"latency_p95": 0.0}])
def test_a_latency_that_no_clock_shows_is_named(make_run, make_row, times: dict[str, float]) -> None:
    folder = make_run([make_row("0001", 1, 0.5, 1.0), make_row("0002", 1, 0.5, 1.0) | times])
    (time,) = times.values()
    with pytest.raises(RunError, match=rf"above 0 ms, but .* has trial 0002, epoch 1, with {time:g} ms"):
        load(folder)
