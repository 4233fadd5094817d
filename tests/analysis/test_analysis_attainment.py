"""What several runs attain: surfaces against counting, terms that must agree, the figure, and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from robustsearch.analysis.attainment import caption, draw, end, hypervolumes, surfaces
from robustsearch.analysis.front import front_table
from robustsearch.analysis.load import load
from robustsearch.analysis.pareto import main
from robustsearch.results import SCHEMA


def table_of(make_row, points) -> pa.Table:
    rows = [make_row(f"{index:04d}", 1, robust, latency) for index, (latency, robust) in enumerate(points)]
    return front_table(
        pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA)
    )


def height(line: np.ndarray, latency: float) -> float:
    """Height of a line of corners at a latency that is none of its own; 0 before its start."""
    return max([0.0, *(robust for time, robust in line if time < latency)])


@pytest.mark.parametrize("runs", [2, 3, 4, 7])
def test_surfaces_are_the_sorted_accuracies_of_the_runs_at_each_latency(make_row, runs: int) -> None:
    rng = np.random.default_rng(runs)
    clouds = [np.column_stack([rng.uniform(1, 5, 12), rng.uniform(0.4, 0.7, 12)]) for _ in range(runs)]
    found = surfaces([table_of(make_row, cloud) for cloud in clouds])
    for latency in rng.uniform(0.5, 6, 200):
        attained = sorted((max([0.0, *cloud[cloud[:, 0] < latency, 1]]) for cloud in clouds), reverse=True)
        assert height(found["best"], latency) == attained[0]
        assert height(found["median"], latency) == attained[(runs + 1) // 2 - 1]
        assert height(found["worst"], latency) == attained[-1]


@pytest.fixture
def folders(make_run, make_row) -> list[Path]:
    """Three runs; by hand: any attains 50% at 1 ms and 60% at 2 ms, all attain 40% at 2 ms and 50% at 3 ms."""
    points = ([(1.0, 0.5), (3.0, 0.55)], [(2.0, 0.6)], [(2.0, 0.4), (3.0, 0.5)])
    return [
        make_run(
            [make_row(f"{index:04d}", 1, robust, latency) for index, (latency, robust) in enumerate(run)],
            info={"name": f"run {number}"},
        )
        for number, run in enumerate(points)
    ]


def test_surfaces_and_hypervolumes_by_hand(folders: list[Path]) -> None:
    tables = [front_table(load(folder).table) for folder in folders]
    found = surfaces(tables)
    assert end(tables) == pytest.approx(3.3)
    np.testing.assert_allclose(found["best"], [(1, 0), (1, 0.5), (2, 0.5), (2, 0.6), (3.3, 0.6)])
    np.testing.assert_allclose(found["median"], [(2, 0), (2, 0.5), (3, 0.5), (3, 0.55), (3.3, 0.55)])
    np.testing.assert_allclose(found["worst"], [(2, 0), (2, 0.4), (3, 0.4), (3, 0.5), (3.3, 0.5)])
    np.testing.assert_allclose(hypervolumes(tables), [2 * 0.5 + 0.3 * 0.55, 1.3 * 0.6, 0.4 + 0.3 * 0.5])


def test_the_figure_has_the_surfaces_and_the_points_of_each_run(folders: list[Path]) -> None:
    runs = [load(folder) for folder in folders]
    tables = [front_table(run.table) for run in runs]
    figure = draw({run.name: table for run, table in zip(runs, tables, strict=True)}, caption(runs, tables))
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].get_lines()}
    right = figure.axes[0].get_xlim()[1]
    np.testing.assert_allclose(lines["worst"], [(2, 0), (2, 40), (3, 40), (3, 50), (right, 50)])
    np.testing.assert_allclose(lines["run 0"], [(1, 50), (3, 55)])
    legends = [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]
    assert legends == [["best", "median", "worst"], ["run 0", "run 1", "run 2"]]


@pytest.mark.slow
def test_the_command_draws_several_runs_as_one_figure(folders: list[Path], capsys) -> None:
    assert main([str(folder) for folder in folders]) == 0
    printed, complaints = capsys.readouterr()
    assert complaints == ""
    paths = [folders[0] / "figures" / f"attainment.{end}" for end in ("png", "svg", "pdf")]
    assert printed.splitlines()[-3:] == [str(path) for path in paths]
    assert sorted((folders[0] / "figures").iterdir()) == sorted(paths)
    assert "run 0 1.165, run 1 0.78, run 2 0.55; median 0.78" in " ".join(printed.split())
    assert "run 1 0.78" in paths[1].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"epsilon": 0.2}, "must have the same epsilon, but got 0.1, 0.2"),
        ({"dataset": "cifar10"}, "must have the same dataset, but got cifar10, digits"),
        ({"role": "baseline"}, "must have a front, but other has none"),
    ],
)
def test_runs_on_other_terms_are_not_compared(folders, make_run, make_row, capsys, fields, rule: str) -> None:
    other = make_run([make_row("0000", 1, 0.5, 1.0, **fields)], info={"name": "other"})
    assert main([str(folders[0]), str(other)]) == 2
    printed, complaints = capsys.readouterr()
    assert printed == ""
    assert rule in complaints


def test_two_runs_of_one_name_and_a_colour_are_answered_with_one_line(folders: list[Path], capsys) -> None:
    assert main([str(folders[0]), str(folders[0])]) == 2
    assert "must have different names, but got run 0, run 0" in capsys.readouterr().err
    assert main([str(folders[0]), str(folders[1]), "--color", "activation"]) == 2
    assert "`--color` and `--third` are for the points of one run, but got 2 runs" in capsys.readouterr().err
