"""Importance: fields and their parts, shares against other computations, figures, and the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex
from scipy.stats import binom, kruskal

from robustsearch.analysis.fields import Field, field, fields
from robustsearch.analysis.importance import main
from robustsearch.analysis.importance_figure import coordinate, draw_parallel, draw_shares, draw_slices
from robustsearch.analysis.importance_numbers import FEWEST, comparable, explained, groups, importance, parts
from robustsearch.recipe import Recipe
from robustsearch.results import SCHEMA

ROOT = Path(__file__).parents[2]


def recipe(index: int) -> Recipe:
    """Recipes in which the depth, the learning rate, the gate, PNI and its place differ; step follows epsilon."""
    rng = np.random.default_rng(index)
    radius = float(rng.uniform(0.05, 0.2))
    values: dict[str, Any] = {
        "model": {"depth": int(rng.choice([10, 16, 22]))},
        "training": {"lr": float(rng.uniform(0.01, 0.1)), "awp": 0.005 if rng.random() < 0.5 else None},
        "attack": {"epsilon": radius, "steps": 4, "step": radius / 2},
    }
    if rng.random() < 0.5:
        gate = str(rng.choice(["mean", "noisy"]))
        values["lwta"] = {"gate": gate, "gate_noise": float(rng.uniform(0.1, 1)) if gate == "noisy" else None}
    if rng.random() < 0.5:
        values["pni"] = {"where": str(rng.choice(["weights", "inputs"]))}
    return Recipe.of(values)


def rows_of(make_row, count: int) -> list[dict[str, Any]]:
    """Latency follows the depth, robust accuracy the learning rate; both with a little noise."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(count):
        made = recipe(index)
        robust = 0.3 + 3 * made.training.lr + 0.02 * rng.normal()
        latency = made.model.depth / 10 * np.exp(0.1 * rng.normal())
        rows.append(make_row(f"{index:04d}", 2, robust, latency, recipe=made))
    return rows


@pytest.fixture(scope="module")
def table(make_row) -> pa.Table:
    rows = rows_of(make_row, 80)
    return pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA)


def test_the_fields_are_what_varied_with_a_switch_for_each_part_that_none_of_them_tells(table: pa.Table) -> None:
    found = {one.name: one for one in fields(table)}
    assert list(found) == [
        *("activation", "model.depth", "lwta.gate", "lwta.gate_noise", "pni on", "pni.where", "attack.epsilon"),
        *("training.lr", "training.awp on"),
    ]
    assert found["model.depth"].levels == (10, 16, 22)
    assert found["training.lr"].levels is None
    assert not found["training.lr"].log
    assert found["attack.epsilon"].also == ("attack.step",)
    assert found["attack.epsilon"].label == "attack.epsilon (+1)"
    assert found["pni on"].values == tuple(value is not None for value in found["pni.where"].values)
    assert (found["lwta.gate"].off == np.array([value == "relu" for value in found["activation"].values])).all()


def test_a_switch_has_no_value_where_the_part_around_it_is_off(make_row) -> None:
    variants = [{}, {"lwta": {"units": 2}}, {"lwta": {"units": 4, "ibp": {}}}, {"lwta": {"units": 4}}]
    rows = [make_row(str(index), 1, 0.5, 1.0, recipe=Recipe.of(values)) for index, values in enumerate(variants)]
    table = pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA)
    found = {one.name: one.values for one in fields(table)}
    assert found == {
        "activation": ("relu", "lwta", "lwta", "lwta"),
        "lwta.units": (None, 2, 4, 4),
        "lwta.ibp on": (None, False, True, False),
    }


def test_fields_that_differ_in_every_trial_say_the_same_only_in_the_same_order(make_row) -> None:
    recipes = [
        {"training": {"lr": lr, "weight_decay": lr / 100}, "attack": {"epsilon": epsilon, "step": epsilon}}
        for lr, epsilon in ((0.01, 0.2), (0.02, 0.1), (0.03, 0.3), (0.04, 0.15))
    ]
    rows = [make_row(str(index), 1, 0.5, 1.0, recipe=Recipe.of(values)) for index, values in enumerate(recipes)]
    table = pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA)
    assert {one.name: one.also for one in fields(table)} == {
        "attack.epsilon": ("attack.step",),
        "training.lr": ("training.weight_decay",),
    }


@pytest.mark.parametrize(
    ("values", "levels", "log"),
    [
        ((1, 2, 2, None), (1, 2), False),
        (("b", "a", "a"), ("a", "b"), False),
        (tuple(range(8)), tuple(range(8)), False),
        (tuple(range(9)), None, False),
        (tuple(2.0**index for index in range(9)), None, True),
        (tuple(1.0 + index for index in range(9)), None, False),
    ],
)
def test_what_kind_a_field_is(values: tuple[Any, ...], levels: tuple[Any, ...] | None, log: bool) -> None:
    assert (field("x", values).levels, field("x", values).log) == (levels, log)


def test_parts_are_quantiles_and_a_common_value_is_a_part_of_its_own() -> None:
    code, names = parts(Field("x", tuple(np.arange(1.0, 11.0)), None))
    assert code.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert names == [1.5, 3.5, 5.5, 7.5, 9.5]
    code, names = parts(Field("x", (None, *[0.0] * 7, 1.0, 2.0, 3.0), None))
    assert code[0] == -1
    assert set(code[1:8]) == {0}
    assert 0 not in code[8:]
    assert names[0] == 0
    code, names = parts(field("x", ("b", None, "a")))
    assert (code.tolist(), names) == ([1, -1, 0], ["a", "b"])


def test_a_share_is_what_the_kruskal_wallis_statistic_says() -> None:
    """Of ranks, H / (n - 1) is SS_between / SS_total; epsilon squared follows from it."""
    rng = np.random.default_rng(1)
    code = rng.integers(0, 4, 60)
    y = np.argsort(np.argsort(rng.normal(size=60) + code)).astype(float)
    between = kruskal(*(y[code == group] for group in range(4))).statistic / 59
    assert explained(y, code) == pytest.approx(between - 3 * (1 - between) / 56)


def test_a_field_that_is_off_somewhere_explains_what_its_levels_do_where_it_is_on() -> None:
    rng = np.random.default_rng(2)
    code = rng.integers(-1, 3, 90)
    y = rng.normal(size=90) + np.maximum(code, 0)
    on = y[code >= 0]
    means = {group: y[code == group].mean() for group in range(3)}
    between = sum((means[group] - on.mean()) ** 2 for group in code[code >= 0])
    within = sum((value - means[group]) ** 2 for value, group in zip(y, code, strict=True) if group >= 0)
    total = sum((value - y.mean()) ** 2 for value in y)
    assert explained(y, code) == pytest.approx((between - 2 * within / (len(on) - 3)) / total)


@pytest.mark.parametrize("code", [[0] * 6, [-1] * 6, [0, 1, 2, 3, 4, 5], [-1, -1, -1, -1, 0, 1]])
def test_without_two_groups_and_a_value_to_spare_nothing_is_explained(code: list[int]) -> None:
    assert explained(np.arange(6.0), np.array(code)) == 0


@pytest.mark.slow
def test_the_fields_that_decide_come_first_and_no_other_is_above_the_noise(table: pa.Table) -> None:
    shares = importance(comparable(table), fields(table)).to_pylist()
    assert {row["field"] for row in shares[:4]} == {"model.depth", "training.lr"}
    above = {(row["field"], row["objective"]) for row in shares if row["explained"] > row["noise"]}
    assert above == {("model.depth", "latency_p50"), ("training.lr", "robust")}
    assert all(row["low"] <= row["explained"] <= row["high"] for row in shares)
    assert all(
        row["trials"] == sum(value is not None for value in table[row["field"]].to_pylist()) for row in shares[:4]
    )
    assert importance(table, fields(table)).equals(importance(table, fields(table)))


def simulated(rng: np.random.Generator, effect: float, fields: int = 1) -> tuple[pa.Table, list[Field]]:
    """Eighty trials with fields of four levels; the first shifts both objectives by `effect` a level."""
    levels = rng.integers(0, 4, (fields, 80))
    y = effect * levels[0] + rng.normal(size=80)
    return pa.table({"robust": y, "latency_p50": -y}), [field(str(i), row.tolist()) for i, row in enumerate(levels)]


@pytest.mark.slow
def test_intervals_cover_the_true_share() -> None:
    """Of 100, at least 88 of nominally 95: below that is less likely than 1 in 300."""
    rng = np.random.default_rng(3)
    big = rng.integers(0, 4, 200_000)
    truth = explained(np.argsort(np.argsort(0.7 * big + rng.normal(size=big.size))).astype(float), big)
    covered = 0
    for _ in range(100):
        row = importance(*simulated(rng, 0.7)).to_pylist()[0]
        covered += row["low"] <= truth <= row["high"]
    assert covered >= 88


@pytest.mark.slow
def test_the_noise_level_is_passed_by_luck_in_one_run_of_twenty() -> None:
    """Of 40 runs without any effect, at most 7 have a field above it: more is less likely than 1 in 300."""
    rng = np.random.default_rng(4)
    passed = 0
    for _ in range(40):
        rows = importance(*simulated(rng, 0.0, fields=4)).to_pylist()
        passed += any(row["explained"] > row["noise"] for row in rows if row["objective"] == "robust")
    assert passed <= 7


def test_groups_have_medians_with_intervals_from_order_statistics() -> None:
    values = (None,) * 5 + ("a",) * 6 + ("b",) * 25
    y = np.arange(36.0)
    found = groups(field("x", values), y)
    assert [(group.level, group.n, group.median) for group in found] == [(None, 5, 2), ("a", 6, 7.5), ("b", 25, 23)]
    assert found[0].interval is None
    assert found[1].interval == (5, 10)
    assert found[2].interval is not None
    below = int(found[2].interval[0] - 11)
    assert 24 - below == found[2].interval[1] - 11
    assert 1 - 2 * binom.cdf(below, 25, 0.5) >= 0.95
    assert 1 - 2 * binom.cdf(below + 1, 25, 0.5) < 0.95


def test_trials_are_compared_at_the_last_rung_that_most_of_them_reached(make_row) -> None:
    rows = []
    for trial in range(FEWEST + 5):
        epochs = (1, 2) if trial < FEWEST + 2 else (1, 3)
        rows += [make_row(f"{trial:04d}", epoch, 0.5, 1.0) for epoch in epochs]
    rows.append(make_row("baseline", 1, 0.5, 1.0, role="baseline"))
    table = pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA)
    assert set(comparable(table)["epoch"].to_pylist()) == {1}
    assert len(comparable(table)) == FEWEST + 5
    assert len(comparable(table, 2)) == FEWEST + 2


def test_coordinates_put_what_is_off_lowest() -> None:
    heights, ticks = coordinate(field("x", ("b", None, "a")))
    assert heights.tolist() == [1, 0, 0.5]
    assert ticks == [(0, "off"), (0.5, "a"), (1, "b")]
    heights, ticks = coordinate(Field("x", (None, 1.0, 10.0, 100.0), None, log=True))
    np.testing.assert_allclose(heights, [0, 0.15, 0.575, 1])
    assert ticks == [(0, "off"), (0.15, "1"), (1, "100")]


@pytest.mark.slow
def test_the_figures_show_the_numbers(table: pa.Table) -> None:
    found = fields(table)
    shares = importance(table, found)
    values = {name: table[name].to_numpy() for name in ("robust", "latency_p50")}
    figure = draw_shares(shares, found, "A caption.")
    dots = [line.get_xdata()[0] for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    robust = {row["field"]: 100 * row["explained"] for row in shares.to_pylist() if row["objective"] == "robust"}
    np.testing.assert_allclose(dots, [robust[one.name] for one in found])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [one.label for one in found]
    depth = next(one for one in found if one.name == "model.depth")
    figure = draw_slices([depth], values, "A caption.")
    lines = figure.axes[1].get_lines()
    assert sum(len(line.get_xdata()) for line in lines if line.get_markersize() == 2.5) == len(table)
    medians = [line.get_ydata()[0] for line in lines if line.get_markersize() == 5]
    chosen = [values["latency_p50"][[value == level for value in depth.values]] for level in (10, 16, 22)]
    np.testing.assert_allclose(medians, [np.median(one) for one in chosen])
    front = np.arange(len(table)) < 3
    axes = draw_parallel(found, values, front, "A caption.").axes[0]
    assert sum(line.get_linewidth() == 1.6 for line in axes.get_lines()) == 3
    assert len(axes.get_lines()) == len(table) + len(found) + 2


def test_the_most_robust_are_yellow_and_the_fastest_purple_where_two_are_level_too() -> None:
    field = Field("x", (1.0, 2.0, 3.0, 4.0, 5.0), None)
    values = {"robust": np.array([0.2, 0.3, 0.5, 0.5, 0.1]), "latency_p50": np.array([1.0, 2.0, 3.0, 3.0, 9.0])}
    front = np.array([True, True, True, True, False])
    lines = draw_parallel([field], values, front, "").axes[0].get_lines()
    shades = [to_hex(line.get_color()) for line in lines if line.get_linewidth() == 1.6]
    expected = [to_hex(colormaps["viridis"](share)) for share in (0.0, 0.5, 1.0, 1.0)]
    assert shades == expected


@pytest.mark.parametrize(("values", "log"), [((1.0, 2.0, 5.0), False), ((0.01, 0.1, 1.0), True)])
def test_a_slice_of_a_scale_puts_what_is_off_aside_and_says_so(values: tuple[float, ...], log: bool) -> None:
    field = Field("x", (None, None, *values), None, log=log)
    figure = draw_slices([field], dict.fromkeys(("robust", "latency_p50"), np.arange(1.0, 6.0)), "A caption.")
    axes = figure.axes[0]
    ticks = {label.get_text(): at for label, at in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)}
    dots = axes.get_lines()[0].get_xdata()
    assert dots.tolist() == [ticks["off"], ticks["off"], *values]
    assert ticks["off"] < values[0]
    assert min(at for label, at in ticks.items() if label != "off") >= values[0]


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_nine_files(make_run, make_row, tmp_path: Path, capsys) -> None:
    folder = make_run(rows_of(make_row, 60))
    assert main([str(folder), "--out", str(tmp_path / "new")]) == 0
    printed, complaints = capsys.readouterr()
    assert complaints == ""
    paths = [tmp_path / "new" / f"{name}.{end}" for name in ("importance", "slices", "parallel") for end in _ENDS]
    assert printed.splitlines()[-9:] == [str(path) for path in paths]
    assert all(path.stat().st_size > 1000 for path in paths)
    assert "60 trials of the sampler, measured after epoch 2" in (tmp_path / "new" / "slices.svg").read_text()
    line = next(line for line in printed.splitlines() if line.strip().startswith("model.depth"))
    assert line.count("*") == 1


_ENDS = ("png", "svg", "pdf")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "arguments", "rule"),
    [
        (FEWEST - 1, [], f"at least {FEWEST} trials measured after the same epoch, but this run has 39 after epoch 2"),
        (FEWEST, ["--epoch", "7"], "but this run has 40 after epoch 2"),
    ],
)
def test_too_few_trials_are_answered_with_one_line(
    make_run, make_row, capsys, count: int, arguments: list[str], rule: str
) -> None:
    folder = make_run(rows_of(make_row, count))
    assert main([str(folder), *arguments]) == 2
    printed, complaints = capsys.readouterr()
    assert printed == ""
    assert rule in complaints
    assert len(complaints.splitlines()) == 1
    assert not (folder / "figures").exists()


@pytest.mark.slow
def test_trials_of_one_recipe_are_answered_with_one_line(make_run, make_row, capsys) -> None:
    folder = make_run([make_row(f"{index:04d}", 1, 0.5, 1.0) for index in range(FEWEST)])
    assert main([str(folder)]) == 2
    assert "these all have the same recipe" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_imports_nothing_heavy() -> None:
    code = "import sys, analysis.importance; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "ray", "optuna", "matplotlib.pyplot"} & set(loaded.split())
