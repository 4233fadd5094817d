"""The figure for paper: what is drawn where, that it can be read, and the three files."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from robustsearch.analysis import style
from robustsearch.analysis.front import front_table
from robustsearch.analysis.front_figure import draw
from robustsearch.analysis.load import Run, load
from robustsearch.analysis.paper import save


@pytest.fixture(scope="module")
def figure(hand_run: Run) -> Figure:
    return draw(front_table(hand_run.table), "A caption of two sentences. It costs $5 or $6.", None)


def texts(figure: Figure) -> list[Text]:
    """All text that is drawn; Matplotlib keeps labels of ticks beyond the axes, too, and does not draw them."""
    beyond = [
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for at, label in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
        if not min(axis.get_view_interval()) <= at <= max(axis.get_view_interval())
    ]
    return [
        text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible() and text not in beyond
    ]


def series(figure: Figure) -> list[tuple[str, list[tuple[float, float]]]]:
    """Marker and points of all that is drawn with `plot`."""
    axes = figure.axes[0]
    return [(line.get_marker(), [(x, y) for x, y in line.get_xydata()]) for line in axes.get_lines()]


def test_the_staircase_is_drawn_to_the_right_edge(figure: Figure) -> None:
    right = figure.axes[0].get_xlim()[1]
    corners = [(1, 0), (1, 50), (2, 50), (2, 60), (right, 60)]
    assert any(
        marker == "None" and np.allclose(points, corners) for marker, points in series(figure) if len(points) == 5
    )
    assert right > 6  # the baseline's p95


def test_points_are_where_they_were_measured(figure: Figure) -> None:
    def places(shape: str) -> list[tuple[float, float]]:
        return sorted(point for marker, points in series(figure) for point in points if marker == shape)

    np.testing.assert_allclose(places("o"), [(1, 30), (1, 50), (2, 40), (4, 20), (4, 55)])
    np.testing.assert_allclose(places("x"), [(2, 60)])
    np.testing.assert_allclose(places("D"), [(5, 65)])


def test_only_the_front_and_the_baseline_have_intervals(figure: Figure) -> None:
    segments = [segment for lines in figure.axes[0].collections[1:] for segment in lines.get_segments()]
    upright = sorted((start[0], start[1], end[1]) for start, end in segments if start[0] == end[0])
    across = sorted((start[1], start[0], end[0]) for start, end in segments if start[1] == end[1])
    np.testing.assert_allclose(upright, [(1, 46, 54), (2, 56, 64), (5, 61, 69)])
    np.testing.assert_allclose(across, [(50, 1, 1.2), (60, 2, 2.4), (65, 5, 6)])


def test_labels_name_the_front_and_nothing_else(figure: Figure) -> None:
    assert {text.get_text() for text in figure.axes[0].texts} == {"0001 (100%)", "0002 (99%)"}


@pytest.mark.parametrize(("members", "apart"), [(5, 0.02), (8, 0.06)])
def test_every_member_of_a_crowded_front_has_its_name(make_run, make_row, members: int, apart: float) -> None:
    rows = [make_row(f"{place:04d}", 1, 0.8 + 0.01 * place, 1 + apart * place) for place in range(members)]
    rows.append(make_row("baseline", 1, 0.4, 3.0, role="baseline"))
    figure = draw(front_table(load(make_run(rows)).table), "", None)
    labels = figure.axes[0].texts
    assert [text.get_text()[:4] for text in labels] == [f"{place:04d}" for place in range(members)]
    boxes = [Text.get_window_extent(text) for text in labels]
    assert all(box.count_overlaps(boxes) == 1 for box in boxes)  # its own


def test_the_legend_has_what_is_in_the_picture(figure: Figure) -> None:
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "Pareto front",
        "dominated",
        "earlier epoch",
        "fails a masking check",
        "plain ReLU WRN-34-1",
    ]


@pytest.mark.parametrize(("slowest", "scale"), [(4.9, "linear"), (5.1, "log"), (900.0, "log")])
def test_the_latency_axis_is_logarithmic_over_a_factor_of_five(make_run, make_row, slowest: float, scale: str) -> None:
    rows = [make_row("0001", 1, 0.5, 1.0, latency_p95=None), make_row("0002", 1, 0.4, slowest)]
    axes = draw(front_table(load(make_run(rows)).table), "", None).axes[0]
    assert axes.get_xscale() == scale
    low, high = axes.get_xlim()
    shown = [
        text.get_text() for at, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True) if low <= at <= high
    ]
    assert len(shown) >= 3
    assert all(float(label) > 0 for label in shown)  # plain numbers, no powers


@pytest.mark.slow
def test_all_text_is_legible_and_no_text_covers_another(make_run, make_row) -> None:
    rng = np.random.default_rng(0)
    rows = [
        make_row(f"{trial:04d}", 1, 0.3 + 0.01 * trial + 0.002 * rng.random(), 1 + 0.08 * trial + 0.02 * rng.random())
        for trial in range(30)
    ]
    caption = "A sentence that has to be broken over several lines. " * 8
    figure = draw(front_table(load(make_run(rows)).table), caption, None)
    figure.draw_without_rendering()
    drawn = texts(figure)
    assert len(figure.axes[0].texts) >= 5
    assert min(text.get_fontsize() for text in drawn) >= 8
    boxes = [Text.get_window_extent(text) for text in drawn]
    for index, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:index]) == 0
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0
        assert box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("field", ["lwta.gate", "training.lr", "lwta.units", "training.augment"])
def test_colours_come_with_their_key(hand_run: Run, field: str) -> None:
    points = front_table(hand_run.table)
    colours = style.colours(points, field)
    figure = draw(points, "", colours)
    drawn = {text.get_text() for text in texts(figure)}
    assert field in drawn
    assert set(colours.names) <= drawn
    assert len(figure.axes) == (2 if colours.norm else 1)
    front = [line for line in figure.axes[0].get_lines() if np.allclose(line.get_xydata(), [(1.0, 50.0)])]
    at = next(index for index, row in enumerate(points.to_pylist()) if row["on_front"])
    assert colours.points[at] in {line.get_color() for line in front}


def test_a_baseline_alone_can_be_drawn(make_run, make_row, tmp_path: Path) -> None:
    run = load(make_run([make_row("baseline", 1, 0.1, 2.0, role="baseline", robust_low=None, latency_p95=None)]))
    figure = draw(front_table(run.table), "", None)
    assert [points for marker, points in series(figure) if marker == "D"] == [[pytest.approx((2.0, 10.0))]]


@pytest.mark.slow
def test_the_three_files(figure: Figure, tmp_path: Path) -> None:
    title, caption = "Pareto front of <by hand>", "n = 400 & more"
    png, svg, pdf = save(figure, tmp_path, "pareto", title, caption)
    pixels = matplotlib.image.imread(png)
    assert pixels.shape[:2] == tuple(round(200 * side) for side in reversed(style.SIZE))
    assert np.ptp(pixels[..., :3]) > 0.8
    assert np.median(pixels[..., :3]) > 0.9  # a light page, for print
    content = re.sub("<!--.*?-->", "", svg.read_text(encoding="utf-8"))  # comments repeat the text
    for text in ("0001", "robust accuracy (%)", "latency p50 at batch 1 (ms)", "costs $5 or $6", "plain ReLU WRN-34-1"):
        assert text in content
    assert "Pareto front of &lt;by hand&gt;" in content
    assert pdf.read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_the_same_points_give_the_same_files(hand_run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(draw(front_table(hand_run.table), "a caption", None), tmp_path / name, "pareto", "title", "caption")
    for suffix in ("png", "svg", "pdf"):
        a, b = (tmp_path / name / f"pareto.{suffix}" for name in ("a", "b"))
        assert a.read_bytes() == b.read_bytes()
