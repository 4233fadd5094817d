"""The table of an ablation, against numbers worked out by hand and by scipy."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from robustsearch.ablation.statistics import adjusted, paired
from robustsearch.analysis.load import load
from robustsearch.analysis.table import Tables, main
from robustsearch.analysis.table_numbers import Numbers, measured, numbers
from robustsearch.errors import RunError
from robustsearch.events import EventLog
from robustsearch.recipe import Recipe

MakeRow = MakeRun = Callable[..., Any]
INFO = {"name": "by_hand", "space": "table1"}

ROBUST = {
    "regular-training": (0.10, 0.12, 0.11),
    "stochastic-lwta": (0.40, 0.44, 0.39),
    "noise-injection": (0.12, 0.11, 0.13),
}
LATENCIES = {
    "regular-training": (1.0, 1.02, 0.99),
    "stochastic-lwta": (2.0, 2.06, 1.97),
    "noise-injection": (1.5, 1.5, 1.5),
}
ASKED = ["regular-training", "noise-injection", "stochastic-lwta"]


@pytest.fixture(scope="module")
def folder(make_run: MakeRun, make_row: MakeRow) -> Path:
    """Three rows of table 1 with three seeds and two epochs each, of 200 images; one trial of a fourth row failed."""
    recipes = {name: Recipe.of({"training": {"lr": 0.01 * (place + 1)}}) for place, name in enumerate(ROBUST)}
    rows = [
        make_row(
            f"{name}-s{seed}",
            epoch,
            ROBUST[name][seed] if epoch == 30 else 0.01,
            LATENCIES[name][seed],
            recipe=recipes[name],
            seed=seed,
            n=200,
            protocol="report",
            role="repeat" if seed else "search",
            masked=name == "stochastic-lwta" and seed == 1,
        )
        for name in ROBUST
        for seed in range(3)
        for epoch in (15, 30)
    ]
    rows.append(make_row("smoothing-s0", 0, None, None, seed=0, state="crashed"))
    path = make_run(rows, INFO)
    log = EventLog(path / "events.jsonl")
    for name in ASKED:
        for seed in range(3):
            log.append("ask", f"{name}-s{seed}")
    log.close()
    return path


@pytest.fixture(scope="module")
def table(folder: Path) -> Numbers:
    """Its numbers."""
    return numbers(measured(load(folder)))


def test_the_last_epoch_of_each_row_in_the_designs_order(table: Numbers) -> None:
    assert list(table) == ASKED
    cell = table["stochastic-lwta"]["robust"]
    assert cell.mean == pytest.approx(0.41)
    assert cell.seeds == 3
    assert 0.30 < cell.low < 0.41 < cell.high < 0.52
    assert table["regular-training"]["natural"].mean == pytest.approx(0.41)


def test_differences_are_paired_and_corrected(table: Numbers) -> None:
    found = paired([ROBUST[name] for name in ASKED[1:]], ROBUST[ASKED[0]], images=200)
    for place, name in enumerate(ASKED[1:]):
        cell = table[name]["robust"]
        assert cell.difference == pytest.approx(np.mean(ROBUST[name]) - 0.11)
        assert (cell.difference_low, cell.difference_high) == pytest.approx((found.low[place], found.high[place]))
        assert cell.p == pytest.approx(adjusted(found.p)[place])
    assert math.isnan(table[ASKED[0]]["robust"].difference)


def test_latencies_are_compared_as_ratios_over_seeds_alone(table: Numbers) -> None:
    cell = table["stochastic-lwta"]["latency_p50"]
    theirs = stats.ttest_rel(np.log(LATENCIES["stochastic-lwta"]), np.log(LATENCIES["regular-training"]))
    low, high = np.exp(theirs.confidence_interval())
    assert (cell.difference_low, cell.difference_high) == pytest.approx((low, high))
    assert cell.mean == pytest.approx(stats.gmean(LATENCIES["stochastic-lwta"]))


def test_markdown_has_values_differences_published_numbers_and_notes(folder: Path) -> None:
    text = Tables(load(folder)).markdown()
    text, _, notes = text.partition("## What each row adds")
    assert len(re.findall(r"^\| stochastic-lwta \|", notes, flags=re.MULTILINE)) == 1
    (values, differences) = re.findall(r"^\| stochastic-lwta \|.*$", text, flags=re.MULTILINE)
    assert re.search(
        r"\| 71\.0 \[[\d.]+, [\d.]+\] \(67\.9\) \| 43\.0 \[.*?\] \(36\.23\) \| 51\.0 \[.*?\] \(11\.33\)", values
    )
    assert "+30.0* [" in differences
    assert "×2.00* [" in differences
    assert len(re.findall(r"^\| regular-training", text, flags=re.MULTILINE)) == 1
    assert "Protocol report: 3 PGD steps of 0.01" in notes
    assert "Masking checks failed in stochastic-lwta-s1." in notes
    assert "PGD leaves more" not in notes


@pytest.mark.slow
def test_notes_follow_from_the_numbers(make_run: MakeRun, make_row: MakeRow) -> None:
    """PGD leaves 30 points more than FGSM; CW leaves natural accuracy; the protocol is another."""
    odd = {"pgd": 0.4, "fgsm": 0.1, "natural": 0.7, "cw": 0.71}
    rows = [make_row(f"a-s{seed}", 4, 0.1, 1.0, seed=seed) | odd for seed in (0, 1)]
    rows += [
        make_row(f"b-s{seed}", 4, 0.1, 1.0, seed=seed, recipe=Recipe.of({"draws": 1, "pni": {}})) for seed in (0, 1)
    ]
    run = load(make_run(rows))
    text = Tables(run).markdown()
    assert "PGD leaves more than FGSM in a:" in text
    assert "natural accuracy in a:" in text
    assert "Protocol report" not in text
    assert "published" not in text


def test_one_seed_has_means_and_no_intervals(make_run: MakeRun, make_row: MakeRow) -> None:
    run = load(make_run([make_row("a-s0", 4, 0.1, 1.0, seed=0), make_row("b-s0", 4, 0.3, 2.0, seed=0)]))
    text = Tables(run).markdown()
    assert "| a | 40.0 | 12.0 | 20.0 | 30.0 | 10.0 | 1.00 | 1 |" in text
    assert "| b | – | – | – | – | – | – | 1 |" in text


@pytest.mark.slow
def test_the_command_writes_three_files(
    folder: Path, table: Numbers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() in printed
    lines = list(csv.DictReader((tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()))
    assert len(lines) == 3 * 6
    (line,) = [line for line in lines if (line["row"], line["column"]) == ("stochastic-lwta", "pgd")]
    assert float(line["mean"]) == pytest.approx(0.43)
    assert float(line["published"]) == pytest.approx(0.3623)
    assert [line["difference"] for line in lines if line["row"] == "regular-training"] == [""] * 6
    text = (tmp_path / "table.tex").read_text()
    assert text == Tables(load(folder)).latex()
    bodies = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in bodies} == {7, 3}  # the rows, and their part in the front
    assert not [line for line in text.splitlines() if line[:1] != "%" and re.search(r"(?<!\\)[%_#]", line)]


def test_other_runs_are_refused(
    hand_folder: Path, make_run: MakeRun, make_row: MakeRow, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(hand_folder)]) == 2
    assert "needs the run of a design, with trials named ROW-sSEED, but got '0001'" in capsys.readouterr().err
    with pytest.raises(RunError, match="trials that were measured"):
        measured(load(make_run([make_row("a-s0", 0, None, None, seed=0, state="crashed")])))
