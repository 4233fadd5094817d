"""The front as a part of a page: which points it knows, where its pictures have them, and what it says of each."""

from __future__ import annotations

import numpy as np
import pytest

from robustsearch.analysis import style
from robustsearch.analysis.explore import SIZES, explorable, numbers, positions, settings, shared_settings
from robustsearch.analysis.front import front_table
from robustsearch.analysis.front_figure import draw
from robustsearch.analysis.load import Run


def test_it_knows_every_point_that_is_drawn(hand_run: Run) -> None:
    data = explorable(front_table(hand_run.table), None).data
    assert [(trial, epoch, front) for trial, epoch, front, _ in data["points"]] == [
        ("0001", 4, True),
        ("0001", 2, False),
        ("0002", 4, True),
        ("0002", 2, False),
        ("0003", 4, False),
        ("0003", 2, False),
        ("baseline", 4, False),
    ]
    assert {name: len(places) for name, places in data["places"].items()} == dict.fromkeys(SIZES, 7)
    assert set(data["settings"]) == {trial for trial, *_ in data["points"]}


@pytest.mark.parametrize("field", [None, "training.lr", "lwta.gate"])
def test_positions_are_those_of_the_pixels(hand_run: Run, field: str | None) -> None:
    points = front_table(hand_run.table)
    colours = style.colours(points, field) if field else None
    figure = draw(points, "", colours, SIZES["narrow"])
    figure.set_layout_engine("none")
    figure.set_dpi(200)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    at = points["trial"].to_pylist().index("0001"), points["trial"].to_pylist().index("baseline")
    rows = [points.to_pylist()[index] for index in at]
    shades = [colours.points[at[0]] if colours else style.FRONT, style.INK]
    for (x, y), shade in zip(positions(figure, rows), shades, strict=True):
        seen = pixels[int(y * pixels.shape[0]), int(x * pixels.shape[1])]
        assert np.abs(seen - np.array([int(shade[start : start + 2], 16) for start in (1, 3, 5)])).max() < 8


def test_numbers_of_a_point_and_the_settings_that_are_on_and_differ(hand_run: Run) -> None:
    points = front_table(hand_run.table)
    shared = shared_settings(points)
    assert shared["model.depth"] == "34"
    assert shared["attack.epsilon"] == "0.1"
    assert not {"training.lr", "activation", "lwta.units", "pni.alpha"} & shared.keys()
    row = next(row for row in points.to_pylist() if row["trial"] == "0002" and row["final"])
    assert numbers(row) == [
        "0002, epoch 4",
        "robust 60.0 [56.0, 64.0] % over 1 seed",
        "on the front with probability 99%",
        "natural 90.0, PGD 62.0, FGSM 70.0, CW 80.0 %",
        "latency p50 2.00, p95 2.40 ms",
        "– parameters, – multiply-accumulates",
        "masking checks: fails",
    ]
    own = ["activation = lwta", "lwta.units = 4", "lwta.temperature = 0.67", "lwta.kl_weight = 1", "lwta.gate = mean"]
    assert settings(row, shared) == [*own, "training.lr = 0.1"]
    baseline = next(row for row in points.to_pylist() if row["role"] == "baseline")
    assert not [line for line in numbers(baseline) if "probability" in line]
