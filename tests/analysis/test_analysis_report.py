"""The report of a run: what its page holds."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pages import Page, texts
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from robustsearch.analysis.condition import open_anyway
from robustsearch.analysis.report import main, page
from robustsearch.events import EventLog
from robustsearch.recipe import Recipe
from robustsearch.results import write_evaluation, write_trial
from robustsearch.search.board import Board
from robustsearch.trial import Portrait

CHECKS = [
    {"name": "square", "value": 0.01, "threshold": 0.05, "passed": True, "reason": "below the tolerance"},
    {"name": "unbounded", "value": 0.4, "threshold": 0.1, "passed": False, "reason": "40% survive <any> noise"},
]

NAMES, SHOWN = ("cat", "<dog>", "frog"), np.array([0, 1, 2, 1])
"""Classes, and those of the images in the log."""


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


@pytest.mark.slow
def test_a_folder_that_cannot_be_written(folder: Path, tmp_path: Path, capsys) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    assert main([str(folder), "--out", str(taken)]) == 2
    assert "`--out` must be a folder that can be written" in capsys.readouterr().err
