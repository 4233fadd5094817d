"""The report's second table and the adaptive columns, from evaluations written by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustsearch import results
from robustsearch.ablation.statistics import mean
from robustsearch.analysis.load import load
from robustsearch.analysis.table import Tables

MakeRow = MakeRun = Callable[..., Any]

PGD_L2 = {"regular-training": (0.2, 0.25, 0.3), "stochastic-lwta": (0.6, 0.7, 0.65)}
PGD = {"regular-training": (0.12, 0.14, 0.13), "stochastic-lwta": (0.42, 0.46, 0.41)}
ADAPTIVE = {"regular-training": (0.02, 0.0, 0.01), "stochastic-lwta": (0.2, 0.22, 0.25)}
NAIVE = 0.5
"""What Auto-PGD on one draw leaves of the network with hard gates."""


@pytest.fixture(scope="module")
def folder(make_run: MakeRun, make_row: MakeRow) -> Path:
    """Two rows of the report's with three seeds, and an evaluation of each trial under `standard`."""
    rows = [
        make_row(f"{name}-s{seed}", 12, 0.1, 1.0 + seed, seed=seed, n=200, protocol="report")
        | {"pgd": PGD[name][seed], "pgd_l2": PGD_L2[name][seed]}
        for name in PGD
        for seed in range(3)
    ]
    path = make_run(rows, {"name": "by hand"})
    for row in rows:
        name, seed = row["trial"][:-3], row["seed"]
        adaptive = {"robust": ADAPTIVE[name][seed], "robust_l2": ADAPTIVE[name][seed] + 0.1, "n": 150}
        more = {"protocol": "standard", "epsilon_l2": 0.5, "naive": NAIVE if "lwta" in name else None}
        results.write_evaluation(path / "evaluations", row | adaptive | more)
    # What must not be taken for it: another split, another protocol, another gate, an earlier epoch.
    for other in ({"split": "test"}, {"protocol": "full"}, {"variant": "mean-K1"}, {"epoch": 6}):
        results.write_evaluation(path / "evaluations", rows[0] | {"protocol": "standard", "robust": 0.9} | other)
    return path


@pytest.mark.slow
def test_adaptive_columns_are_the_last_evaluation_s(folder: Path) -> None:
    tables = Tables(load(folder))
    assert tables.found.images["adaptive"] == 150
    for name, values in ADAPTIVE.items():
        cell, expected = tables.numbers[name]["adaptive"], mean(values, images=150)
        assert cell.mean == pytest.approx(np.mean(values))
        assert (cell.low, cell.high) == pytest.approx((max(0, expected.low), expected.high))
        assert tables.numbers[name]["adaptive_l2"].mean == pytest.approx(np.mean(values) + 0.1)


@pytest.mark.slow
def test_the_second_table_sums_two_norms(folder: Path) -> None:
    """The published 114.6 is such a sum; its interval is at most as wide as those of its parts together."""
    tables = Tables(load(folder))
    for name, cells in tables.numbers.items():
        one, two, both = cells["pgd"], cells["pgd_l2"], cells["pgd_both"]
        assert both.mean == pytest.approx(np.mean(PGD[name]) + np.mean(PGD_L2[name]))
        assert both.mean == pytest.approx(one.mean + two.mean)
        assert 0 < both.high - both.mean < (one.high - one.mean) + (two.high - two.mean) + 1e-9
    text = tables.markdown()
    (line,) = [line for line in re.findall(r"^\| stochastic-lwta .*$", text, re.MULTILINE) if "(114.6)" in line]
    assert "108.0 [" in line
    assert re.findall(r"\((\d[\d.]*)\)", line) == ["68.8", "114.6", "11.5", "66"]
    (first,) = [line for line in re.findall(r"^\| stochastic-lwta .*$", text, re.MULTILINE) if "(67.9)" in line]
    assert "22.3 [" in first  # adaptive, beside the published columns
    csv = {path.name: path for path in tables.write(folder / "figures")}["table.csv"].read_text()
    assert csv.count("Table 2,stochastic-lwta,pgd_both,") == 1


def test_a_hidden_gradient_is_noted_and_what_adapts_is_named(folder: Path) -> None:
    text = Tables(load(folder)).markdown()
    assert "in stochastic-lwta (27.7 points): randomness hides the gradient there" in text
    assert "protocol standard at epsilon 0.1, `adaptive l_2` the worst l_2 attack within 0.5; n = 150" in text
    assert "each gradient is that of one draw" in text
