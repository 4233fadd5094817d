"""Figures of trained networks, from arrays made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from robustsearch.analysis.boundary_figures import accuracy, distances
from robustsearch.analysis.figures import main
from robustsearch.analysis.load import load
from robustsearch.analysis.portrait_figures import attacks, confidence, examples, radii, slices
from robustsearch.analysis.portraits import Portrait, calibration_error, chosen
from robustsearch.recipe import Recipe
from robustsearch.runfolder import RunFolder

MakeRow = MakeRun = Callable[..., Any]

ABOUT = {
    "run": "by hand",
    "trial": "plain-s0",
    "epoch": 4,
    "protocol": "standard",
    "defence": "WRN-10-1, LWTA-2 sample",
    "dataset": "digits",
    "split": "test",
    "classes": [f"class {name}" for name in "abc"],
    "epsilon": 0.1,
    "epsilon_l2": 0.5,
    "unit_linf": 0.1,
    "draws": 1,
    "random": True,
    "predictions": 5,
}


def arrays() -> dict[str, np.ndarray]:
    """Ten images of three classes: nine right by themselves, three under PGD, all but one of them under CW."""
    labels = np.arange(10) % 3
    wrong = (labels + 1) % 3
    under_pgd = np.where(np.arange(10) < 3, labels, wrong)
    clean = np.where(np.arange(10) < 9, labels, wrong)
    rng = np.random.default_rng(0)
    along = np.linspace(-2, 2, 5)
    half = np.tile(along < 0.4, (5, 1))
    return {
        "labels": labels,
        "attacks": np.array(["clean", "pgd", "cw"]),
        "predicted": np.stack([clean, under_pgd, np.where(np.arange(10) < 8, labels, wrong)]),
        "confidence": np.stack([np.linspace(0.4, 0.99, 10)] * 3),
        "shown": np.array([[0, 1, 2, 3, 9, -1, -1, -1], [0, 1, 2, -1, 3, 4, 5, 6], [0, 1, 2, 3, 8, -1, -1, -1]]),
        "originals": rng.random((3, 8, 1, 8, 8)),
        "perturbed": rng.random((3, 8, 1, 8, 8)),
        "radii_linf": np.array([0.1, 0.2]),
        "radii_l2": np.array([0.5, 1.0]),
        "accuracy_linf_pgd": np.array([0.3, 0.0]),
        "accuracy_l2_pgd": np.array([0.6, 0.1]),
        "accuracy_l2_cw": np.array([0.5, 0.0]),
        "distances_linf": np.array([0.0, *np.linspace(0.02, 0.18, 8), np.inf]),
        "distances_l2": np.linspace(0, 0.9, 10),
        "slice_along": along,
        "slice_probability": np.stack([half * 0.8 + 0.1] * 2),
        "slice_right": np.stack([half * 1.0] * 2),
        "slice_labels": np.array([0, 1]),
    }


@pytest.fixture
def portrait() -> Portrait:
    """Of one network."""
    return Portrait("plain-s0", ABOUT, arrays())


def test_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    """Four at 0.95 of which half are right, six at 0.55 all right: 0.4 * 0.45 + 0.6 * 0.45."""
    values, correct = np.array([0.95] * 4 + [0.55] * 6), np.array([1, 1, 0, 0] + [1] * 6)
    error, table = calibration_error(values, correct)
    assert error == pytest.approx(0.45)
    assert table[9].tolist() == pytest.approx([0.95, 0.5, 4])
    assert table[5].tolist() == pytest.approx([0.55, 1.0, 6])
    assert table[:5, 2].sum() == 0
    assert calibration_error(np.ones(3), np.ones(3))[0] == 0


def test_calibration_of_a_calibrated_network_is_near_0() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(20_000)
    assert calibration_error(values, rng.random(20_000) < values)[0] < 0.02


def test_examples_pair_clean_images_with_what_pgd_made_of_them(portrait: Portrait) -> None:
    figure, terms = examples(portrait)
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 2 * 7
    assert [axis.get_title() for axis in shown[:2]] == ["clean\nclass a", "PGD\nclass a"]
    assert shown[7].get_title() == "PGD\nclass b\nis class a"  # image 3 is an a
    assert shown[7].title.get_fontweight() == "bold"
    assert "l∞ radius 0.1" in terms


def test_attacks_show_true_and_predicted_classes(portrait: Portrait) -> None:
    figure, _ = attacks(portrait)
    titles = [axis.get_title() for axis in figure.axes]
    assert len(titles) == 3 * 8
    assert titles[:5] == ["class a→class a", "class b→class b", "class c→class c", "class a→class a", "class a→class b"]
    assert titles[8 + 3] == ""
    assert [axis.get_ylabel() for axis in figure.axes[::8]] == ["clean", "PGD", "CW"]


def test_confidence_counts_all_and_right(portrait: Portrait) -> None:
    figure, terms = confidence(portrait)
    left, middle, right = figure.axes
    assert sum(patch.get_height() for patch in left.patches) == 10
    assert sum(patch.get_height() for patch in middle.patches) == 9
    assert right.get_title().startswith("ECE 0.")
    assert "n = 10 clean images" in terms


def test_radii_and_accuracy_have_a_line_for_each_attack(portrait: Portrait) -> None:
    figure, _ = radii(portrait)
    assert [len(axis.lines) for axis in figure.axes] == [1, 2]
    together, _ = accuracy([portrait, Portrait("b", ABOUT, arrays())])
    assert [len(axis.lines) for axis in together.axes] == [2, 0, 2, 2]
    assert together.axes[0].lines[0].get_ydata().tolist() == [30.0, 0.0]


def test_lines_of_many_rows_can_be_told_apart_and_seen_on_white(portrait: Portrait) -> None:
    figure, _ = accuracy([Portrait(f"row {index}", ABOUT, arrays()) for index in range(10)])
    lines = figure.axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 10
    for line in lines:
        light = np.array(to_rgb(line.get_color())) @ [0.2126, 0.7152, 0.0722]
        assert light < 0.7  # of yellow 0.87


def test_distances_are_quartiles_with_unbroken_images_beyond_the_axis(portrait: Portrait) -> None:
    figure, _ = distances([portrait])
    linf, l2 = figure.axes
    (bar,) = l2.patches
    assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((0.225, 0.675))
    assert linf.lines[1].get_xdata()[0] == pytest.approx(float(np.median(arrays()["distances_linf"])))
    assert linf.lines[0].get_xdata()[1] <= 1.05 * 0.2
    assert linf.get_yticklabels()[0].get_text() == "plain"


def test_slices_show_the_probability_and_where_it_turns(portrait: Portrait) -> None:
    figure, terms = slices(portrait)
    meshes = [axis.collections[0].get_array() for axis in figure.axes[:2]]
    assert float(meshes[0].max()) == pytest.approx(0.9)
    assert "averaged over 5 predictions" in terms


@pytest.fixture(scope="module")
def folder(make_run: MakeRun, make_row: MakeRow) -> Path:
    """A design with two rows and two seeds, of which the first seed's are portrayed."""
    noisy = Recipe.of({"pni": {}})
    rows = [make_row(f"plain-s{seed}", 4, 0.1, 1.0, seed=seed) for seed in (0, 1)]
    rows += [make_row(f"noisy-s{seed}", 4, 0.1, 1.0, noisy, seed=seed) for seed in (0, 1)]
    path = make_run(rows)
    for trial in ("plain-s0", "noisy-s0"):
        file = RunFolder(path).portrait(trial, 4)
        file.parent.mkdir(exist_ok=True)
        np.savez(file, about=np.array(json.dumps(ABOUT | {"trial": trial})), **arrays())
    return path


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_command_draws_what_is_there(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--trial", "plain-s0", "--out", str(tmp_path)]) == 0
    names = {"distances", "accuracy"} | {
        f"{name}-plain-s0" for name in ("examples", "attacks", "confidence", "radii", "slices")
    }
    assert {path.stem for path in tmp_path.iterdir()} == names
    assert capsys.readouterr().out.count(".png") == 7


def test_a_design_shows_its_first_seed_and_a_search_its_front(folder: Path, hand_folder: Path) -> None:
    assert sorted(chosen(load(folder), None)) == ["noisy-s0", "plain-s0"]
    assert chosen(load(hand_folder), None) == ["0001", "0002", "baseline"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mistakes_end_with_code_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--trial", "other"]) == 2
    assert "`--trial` must be one of" in capsys.readouterr().err
    assert main([str(folder), "--trial", "plain-s1"]) == 2  # has no network to compute anything from
    assert "robustsearch.examples failed: error: the dataset must be" in capsys.readouterr().err
