"""Captions, labels and numbers as text."""

from __future__ import annotations

import pytest

from robustsearch.analysis import front_text
from robustsearch.analysis.front import front_table
from robustsearch.analysis.load import Run, load
from robustsearch.recipe import Recipe


def test_the_caption_states_the_terms(hand_run: Run) -> None:
    text = front_text.caption(hand_run, front_table(hand_run.table))
    for part in (
        "digits, validation, l∞ radius 0.1, n = 400 images, protocol standard.",
        "4 trials (1 crashed), 6 measured points, 2 on the front (1 failing a masking check).",
        "Hypervolume 2.6 (accuracy × ms), reference point robust accuracy 0 and 5.5 ms, 1.1 × the slowest point.",
        "Timed with onnxruntime, 1 thread, a processor.",
        "Search seed 7.",
    ):
        assert part in text


def test_the_caption_says_what_is_drawn_and_nothing_else(hand_run: Run, make_run, make_row) -> None:
    points = front_table(hand_run.table)
    terms = front_text.terms(hand_run, points)
    drawn = "Bars: 95% interval of robust accuracy; latency from p50 to p95."
    labels = "In brackets: probability of being on the front."
    assert front_text.caption(hand_run, points) == f"{terms} {drawn} {labels}"
    assert front_text.caption(hand_run, points, "macs").endswith(f"Colour: macs. {drawn} {labels}")
    plain = load(make_run([make_row("baseline", 1, 0.1, 2.0, role="baseline")]))
    assert front_text.caption(plain, front_table(plain.table)).endswith(drawn)  # no front has no labels


def test_the_caption_does_without_what_is_missing(make_run, make_row) -> None:
    nothing = {"dataset": None, "split": None, "epsilon": None, "protocol": None, "n": None}
    nothing |= {"engine": None, "threads": None, "device": None}
    run = load(make_run([make_row("0001", 1, 0.5, 1.0, **nothing)], info={}))
    text = front_text.caption(run, front_table(run.table))
    assert text.startswith("1 trial, 1 measured point, 1 on the front (1 not checked for masking). Hypervolume 0.05 ")
    assert "None" not in text
    assert "Timed" not in text


def test_a_front_is_of_one_device_type_and_its_caption_says_so(make_run, make_row) -> None:
    """The faster and better point was timed elsewhere."""
    here = [make_row("0001", epoch, 0.5, 2.0) for epoch in (1, 2)]
    run = load(make_run([*here, make_row("0002", 2, 0.9, 0.1, device="another")]))
    points = front_table(run.table)
    assert {row["trial"] for row in points.to_pylist()} == {"0001"}
    assert "within one device type, which leaves out 1 measurement on another." in front_text.caption(run, points)
    alone = load(make_run(here))
    assert "leaves out" not in front_text.caption(alone, front_table(alone.table))


def test_the_caption_gives_the_range_of_what_differs(make_run, make_row) -> None:
    run = load(make_run([make_row("0001", epoch, 0.5, 1.0, n=100 * epoch) for epoch in (1, 2, 4)]))
    assert "n = 100 to 400 images" in front_text.caption(run, front_table(run.table))


@pytest.mark.parametrize(
    ("radius", "text"),
    [(0.1, "0.1"), (0.3, "0.3"), (0.2, "0.2"), (8 / 255, "8/255"), (2 / 255, "2/255"), (0.12345, "0.123"), (None, "")],
)
def test_lengths_are_written_as_in_papers(radius: float | None, text: str) -> None:
    assert front_text.length(radius) == text


@pytest.mark.parametrize(
    ("time", "text"),
    [(0.08612, "0.0861"), (1.0, "1.00"), (12.34, "12.3"), (166.2, "166"), (1234.0, "1234"), (None, "–")],
)
def test_times_have_three_digits(time: float | None, text: str) -> None:
    assert front_text.milliseconds(time) == text


def test_kinds_of_points(make_row) -> None:
    def kind(**fields) -> str:
        return front_text.kind(
            make_row("0001", 1, 0.5, 1.0) | {"on_front": False, "final": True, "masked": None} | fields
        )

    assert kind() == "dominated"
    assert kind(final=False) == "earlier epoch"
    assert kind(on_front=True, masked=False) == "Pareto front"
    assert kind(on_front=True, masked=True) == "fails a masking check"
    assert kind(role="baseline") == "plain ReLU WRN-34-1"


def test_a_point_before_the_last_epoch_is_labelled_with_its_epoch(make_row) -> None:
    row = make_row("0001", 3, 0.5, 1.0) | {"on_front": False}
    assert front_text.point_label(row | {"final": True}) == "0001"
    assert front_text.point_label(row | {"final": False}) == "0001, epoch 3"


def test_the_caption_says_how_many_points_have_several_seeds(make_row, make_run) -> None:
    rows = [make_row("0001", 4, 0.50, 1.0), make_row("0002", 4, 0.4, 2.0, recipe=Recipe.of({"model": {"depth": 10}}))]
    rows += [make_row(f"0001-s{seed}", 4, 0.52, 1.0, role="repeat", seed=seed) for seed in (1, 2)]
    run = load(make_run(rows))
    assert "1 point over 3 training seeds, all others from one." in front_text.caption(run, front_table(run.table))
    run = load(make_run(rows[:2]))
    assert "training seeds" not in front_text.caption(run, front_table(run.table))
