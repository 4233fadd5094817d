"""A run in any condition has a report, which says what is missing or left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pages import texts

from robustsearch.analysis.condition import open_anyway
from robustsearch.analysis.load import load
from robustsearch.analysis.report import main, page
from robustsearch.events import EventLog
from robustsearch.results import read, write_evaluation


def rows_of(make_row) -> list[dict[str, Any]]:
    return [make_row("0000", 2, 0.5, 1.0), make_row("0000", 4, 0.6, 1.1)]


def test_an_empty_run_has_a_page(make_run, capsys) -> None:
    folder = make_run([])
    assert main([str(folder)]) == 0
    path = folder / "figures" / "report.html"
    assert capsys.readouterr().out == f"{path}\n"
    shown = texts(path.read_text(encoding="utf-8"))
    assert "Nothing has been measured yet: the run has no results." in shown
    assert "python -m robustsearch.run --space lwta --name 'by hand'" in shown


def test_a_run_that_is_still_going_has_a_page(make_run, make_row) -> None:
    folder = make_run(rows_of(make_row))
    with EventLog(folder / "events.jsonl") as log:
        log.append("start")
        for trial in ("0000", "0001", "0002"):
            log.append("ask", trial)
        log.append("tell", "0000")
    with (folder / "events.jsonl").open("ab") as file:
        file.write(b'{"n": 5, "ti')  # being written just now
    shown = texts(page(*open_anyway(folder)))
    assert "This run has not ended: 2 trials still going, last heard of at 20" in shown
    assert f"--resume --name {folder.name}" in shown
    assert "1 of 2 measured points are on the front" not in shown  # 0.6 at 1.1 ms is as good a choice as 0.5 at 1 ms
    assert "2 of 2 measured points are on the front" in shown


@pytest.mark.slow
def test_a_half_written_run_has_a_page_of_what_is_whole(make_run, make_row) -> None:
    folder = make_run([*rows_of(make_row), make_row("0001", 4, 0.9, 1.0)], info=None)
    torn = folder / "results" / "0001.parquet"
    torn.write_bytes(torn.read_bytes()[:200])
    (folder / "results" / "0002.parquet").write_bytes(b"")
    (folder / "events.jsonl").write_text('{"n": 0\n{"n": 1}\n{"n": 2}\n')
    shown = texts(page(*open_anyway(folder)))
    assert "What was asked is not known" in shown
    assert "cannot be read: 0001.parquet (" in shown
    assert "0002.parquet (" in shown
    assert "Whether the run has ended is not known" in shown
    assert "2 of 2 measured points are on the front" in shown


def rewritten(folder: Path, trial: str, **columns: Any) -> None:
    """Give columns of a trial's results other values, of whatever type; None leaves the column out."""
    path = folder / "results" / f"{trial}.parquet"
    table = pq.read_table(path)
    for name, value in columns.items():
        table = table.drop_columns([name])
        if value is not None:
            table = table.append_column(name, pa.array([value] * table.num_rows))
    pq.write_table(table, path)


@pytest.mark.slow
def test_repeats_of_a_version_without_p95_have_a_page(make_run, make_row) -> None:
    repeats = [make_row(f"0000-s{seed}", 4, 0.6, 1.1, role="repeat") for seed in (1, 2)]
    folder = make_run([*rows_of(make_row), *repeats])
    for trial in ("0000", "0000-s1", "0000-s2"):
        rewritten(folder, trial, latency_p95=None)
    shown = texts(page(*open_anyway(folder)))
    assert "lack columns, which are shown as missing values: latency_p95" in shown
    assert "2 of 2 measured points are on the front" in shown


@pytest.mark.slow
def test_recipes_of_another_version_have_a_page(make_run, make_row) -> None:
    folder = make_run(rows_of(make_row))
    rewritten(folder, "0000", recipe='{"model": {"kind": "transformer"}, "heads": 8}')
    assert "2 of 2 measured points are on the front" in texts(page(*open_anyway(folder)))


@pytest.mark.slow
def test_a_file_whose_numbers_are_words_is_left_out(make_run, make_row) -> None:
    folder = make_run([*rows_of(make_row), make_row("0001", 4, 0.9, 1.0)])
    rewritten(folder, "0001", robust="high")
    shown = texts(page(*open_anyway(folder)))
    assert "these files of results/ cannot be read: 0001.parquet" in shown
    assert "2 of 2 measured points are on the front" in shown


@pytest.mark.slow
@pytest.mark.parametrize("time", [0.0, -0.1])
def test_a_latency_that_no_clock_shows_is_left_out(make_run, make_row, time: float) -> None:
    folder = make_run([*rows_of(make_row), make_row("0001", 4, 0.9, time), make_row("baseline", 4, 0.1, time)])
    shown = texts(page(*open_anyway(folder)))
    assert "Left out of results/, as a latency must be above 0 ms: trial 0001, epoch 4, with" in shown
    assert "2 of 2 measured points are on the front" in shown


@pytest.mark.slow
@pytest.mark.parametrize("checks", ["{", '{"name": "square"}', '[1, "a", null]'])
def test_checks_that_are_none_are_left_out(make_run, make_row, checks: str) -> None:
    folder = make_run(rows_of(make_row))
    evaluated = make_row("0000", 4, 0.5, 1.0, protocol="full", masked=False, checks=checks)
    write_evaluation(folder / "evaluations", evaluated)
    assert "No network of this run has met the masking checks yet" in texts(page(*open_anyway(folder)))


@pytest.mark.slow
def test_a_run_without_an_event_log_says_so(make_run, make_row) -> None:
    shown = texts(page(*open_anyway(make_run(rows_of(make_row)))))
    assert "has no event log, so it is not known whether it has ended" in shown


@pytest.mark.slow
def test_latencies_of_another_device_make_no_front_here_either(make_run, make_row) -> None:
    foreign = make_row("0001", 4, 0.9, 0.1, device="another processor")
    folder = make_run([*rows_of(make_row), make_row("baseline", 4, 0.1, 1.0, role="baseline"), foreign])
    run, _ = open_anyway(folder)
    assert run.table.equals(load(folder).table)
    assert "2 of 2 measured points are on the front" in texts(page(run, []))


def test_a_damaged_file_with_a_whole_footer_is_left_out(make_run, make_row) -> None:
    folder = make_run([*rows_of(make_row), make_row("0001", 4, 0.9, 1.0)])
    path = folder / "results" / "0001.parquet"
    content = bytearray(path.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little") + 8
    content[4 : len(content) - footer] = bytes(len(content) - footer - 4)
    path.write_bytes(content)
    run, notes = open_anyway(folder)
    assert set(run.table["trial"].to_pylist()) == {"0000"}
    assert any("0001.parquet" in note for note in notes)


@pytest.mark.slow
def test_a_run_of_an_older_schema_has_a_page(make_run, make_row) -> None:
    folder = make_run(rows_of(make_row))
    path = folder / "results" / "0000.parquet"
    whole = pq.read_table(path)
    old = ["masked", "robust_l2", "robust_l2_low", "robust_l2_high", "blocks_kept", "feasible", "lwta.units", "recipe"]
    pq.write_table(whole.drop_columns(old), path)
    assert read(folder / "results")["masked"].null_count == 2
    shown = texts(page(*open_anyway(folder)))
    assert "Written by another version of robustsearch: up to 1 files of results/ lack columns" in shown
    assert "recipe, robust_l2, robust_l2_low, robust_l2_high, masked, feasible, blocks_kept, lwta.units" in shown
    assert "2 of 2 measured points are on the front" in shown


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("0000", 0, None, None, {"state": "crashed", "reason": "no memory"})], "at least one measured trial"),
        ([("baseline", 1, 0.1, 2.0, {"role": "baseline"})], "no point of the search was measured"),
    ],
)
def test_a_run_without_a_front_has_a_page(make_run, make_row, rows, reason: str) -> None:
    folder = make_run([make_row(*values, **more) for *values, more in rows])
    shown = texts(page(*open_anyway(folder)))
    assert "There is no front: " in shown
    assert reason in shown


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("")])
def test_what_is_no_run_has_none(tmp_path: Path, capsys, make) -> None:
    folder = tmp_path / "place"
    make(folder)
    assert main([str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: `RUN` must be the folder of a run")
    assert not (folder / "figures").exists()
