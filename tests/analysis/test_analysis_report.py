"""The report of a run: what its page holds, and what it says of a run in any condition."""

from __future__ import annotations

import base64
import io
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pages import Page
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from robustsearch.analysis.condition import open_anyway
from robustsearch.analysis.load import load
from robustsearch.analysis.report import main, page
from robustsearch.analysis.report_numbers import domain, failed, history, spent, states, varied
from robustsearch.events import EventLog
from robustsearch.recipe import Recipe
from robustsearch.results import read, write_evaluation, write_trial
from robustsearch.search.board import Board
from robustsearch.search.ledger import Ledger
from robustsearch.search.live import Attained
from robustsearch.trial import Portrait

CHECKS = [
    {"name": "square", "value": 0.01, "threshold": 0.05, "passed": True, "reason": "below the tolerance"},
    {"name": "unbounded", "value": 0.4, "threshold": 0.1, "passed": False, "reason": "40% survive <any> noise"},
]

NAMES, SHOWN = ("cat", "<dog>", "frog"), np.array([0, 1, 2, 1])
"""Classes, and those of the images in the log."""


def texts(html: str) -> str:
    """All text of a page outside its scripts, with single spaces."""
    parsed = Page(html)
    shown = ("".join(text) for tag, _, text in parsed.found if tag not in ("script", "style"))
    return " ".join(" ".join(shown).split())


@pytest.fixture(scope="module")
def folder(hand_folder: Path, make_row, tmp_path_factory) -> Path:
    """The hand-made run with all that a search leaves: logs, an evaluation of the front, events that end."""
    folder: Path = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(hand_folder, folder)
    board = Board(folder / "trials" / "0001", Recipe(), 0)
    clean = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    for epoch in range(1, 5):
        board.losses(epoch, {"loss": 2.0 / epoch})
    seen = np.array([[0, 1, 2, 0], [1, 1, 2, 2]])
    board.examples(Portrait({}, clean, (clean + 0.1).clip(0, 1), "PGD-3", 0.1, SHOWN, seen), 4, NAMES)
    board.close()
    row = make_row("0002", 4, 0.58, 2.0) | {
        "masked": True,
        "checks": json.dumps(CHECKS),
        "eval_s": 5.0,
        "checks_s": 60.0,
    }
    write_evaluation(folder / "evaluations", row | {"protocol": "full"})
    with EventLog(folder / "events.jsonl") as log:
        log.append("start")
        log.append("end")
    return folder


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return page(*open_anyway(folder))


def test_the_page_holds_every_part_and_asks_nothing(html: str) -> None:
    parsed = Page(html)
    parsed.asks_nothing()
    headed = [attributes["id"] for attributes, _ in parsed.all("section")]
    assert headed == [
        *("front", "space", "protocol", "cost", "importance", "masking", "curves", "examples", "failures", "points"),
        "commands",
    ]
    assert [attributes["href"] for attributes, _ in parsed.all("a")] == [f"#{name}" for name in headed]
    assert all(attributes.get("alt") for attributes, _ in parsed.all("img"))
    assert not [a for a, _ in parsed.all("div") if a.get("class") == "notes"]


def test_the_page_says_what_was_asked_found_and_done(html: str, folder: Path) -> None:
    shown = texts(html)
    for said in (
        "Which recipes are the most robust at each latency, on digits?",
        "2 of 6 measured points are on the front. The most robust, trial 0002 (WRN-34-1, LWTA-4 mean), has "
        "60.0 [56.0, 64.0]% robust accuracy. Its masking checks: fails.",
        "4 completed, 1 crashed",
        "out of memory",
        "importance needs at least 40 trials",
        "unbounded",
        "40% survive <any> noise",
        "l∞ radius 0.1, against trial 0001 after epoch 4",  # 0002 is more robust, but masked
        "python -m robustsearch.run --space lwta --name 'by hand'",
        f"python -m analysis.report {folder}",
        "python 3.11, torch 2.9",
    ):
        assert said in shown


def test_the_examples_are_those_of_the_log(html: str) -> None:
    pictures = [a for a, _ in Page(html).all("img") if a.get("class") == "pixels"]
    clean = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    perturbed = (clean + 0.1).clip(0, 1)
    half = 0.5 + 0.5 * (perturbed - clean) / np.abs(perturbed - clean).max()
    drawn = np.stack([clean, perturbed, half], axis=1).reshape(12, 8, 8)  # by image, then by row
    assert len(pictures) == 12
    for picture, pixels in zip(pictures, drawn, strict=True):
        content = base64.b64decode(str(picture["src"]).removeprefix("data:image/png;base64,"))
        shown = np.array(Image.open(io.BytesIO(content)).convert("L"))
        assert np.abs(shown - 255 * pixels).max() <= 1
    for words in (
        "An image of class cat, which is taken for cat",
        "The same under PGD-3, l∞ radius 0.1, which is taken for <dog>",
        "An image of class <dog>, which is taken for <dog>",
        "The same under PGD-3, l∞ radius 0.1, which is taken for frog",
    ):
        assert words in [picture["alt"] for picture in pictures]
    wrong = [text for attributes, text in Page(html).all("strong") if attributes.get("class") == "wrong"]
    assert wrong == ["<dog> ✗", "cat ✗", "frog ✗"]


@pytest.mark.slow
def test_examples_of_an_earlier_version_are_shown_without_classes(folder: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(folder, older)
    (log,) = (older / "trials" / "0001").glob("*tfevents*")
    log.unlink()
    with SummaryWriter(str(older / "trials" / "0001")) as writer:
        writer.add_image("examples/clean_perturbed_difference", np.full((1, 24, 32), 128, dtype=np.uint8), 4)
    html = page(*open_anyway(older))
    assert "names no classes" in texts(html)
    (picture,) = (a for a, _ in Page(html).all("img") if a.get("class") == "pixels")
    content = base64.b64decode(str(picture["src"]).removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(content)).size == (32, 24)


@pytest.mark.slow
def test_a_front_that_is_masked_throughout_has_its_examples_too(folder: Path, make_row, tmp_path: Path) -> None:
    masked = tmp_path / "masked"
    shutil.copytree(folder, masked)
    row = make_row("0001", 4, 0.5, 1.0) | {"masked": True, "checks": json.dumps(CHECKS), "protocol": "full"}
    write_evaluation(masked / "evaluations", row)
    write_trial(masked / "results", "0002", [make_row("0002", 4, 0.4, 2.0)])
    write_trial(masked / "results", "0003", [make_row("0003", 4, 0.3, 4.0)])
    shown = texts(page(*open_anyway(masked)))
    assert "against trial 0001 after epoch 4" in shown
    assert "It fails a masking check, as all of the front does." in shown


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


def test_names_cannot_break_the_page(make_run, make_row, html: str) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&$title"
    row = make_row("0001", 1, 0.5, 1.0, dataset=evil, engine=evil, protocol=evil, device=evil)
    rows = [row, make_row("0002", 0, None, None, state="crashed", reason=evil)]
    rows[0]["recipe"] = json.dumps({"evil": evil})
    info = dict.fromkeys(("name", "command", "created", "dataset", "space", "summary", "driver"), evil)
    folder = make_run(rows, info=info | {"versions": {evil: evil}, "settings": {"trials": evil}})
    evil_check = dict.fromkeys(CHECKS[0], evil)
    write_evaluation(folder / "evaluations", row | {"protocol": "full", "checks": json.dumps([evil_check])})
    parsed = Page(page(*open_anyway(folder)))
    parsed.asks_nothing()
    assert evil in [text for _, text in parsed.all("th")]
    assert len(parsed.all("script")) == len(Page(html).all("script"))
    assert parsed.all("title")[0][1] == f"Report of {evil}"


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


@pytest.mark.slow
def test_a_folder_that_cannot_be_written(folder: Path, tmp_path: Path, capsys) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    assert main([str(folder), "--out", str(taken)]) == 2
    assert "`--out` must be a folder that can be written" in capsys.readouterr().err
