"""Colours of points: scales for numbers, names for categories, and what is off."""

from __future__ import annotations

from typing import get_args

import pyarrow as pa
import pytest
from matplotlib import colormaps
from matplotlib.colors import LogNorm, to_hex

from robustsearch import recipe
from robustsearch.analysis import style
from robustsearch.analysis.front import front_table
from robustsearch.analysis.load import Run
from robustsearch.errors import UserError
from robustsearch.results import RECIPE_COLUMNS, SCHEMA


def test_a_number_gets_a_scale_over_its_range(make_row) -> None:
    rows = [make_row("0", 1, 0.5, 1.0, **{"training.momentum": value}) for value in (0.5, 0.9, None)]
    colours = style.colours(pa.Table.from_pylist(rows, schema=SCHEMA), "training.momentum")
    ends = [to_hex(colormaps["viridis"](end)) for end in (0.0, 1.0)]
    assert list(colours.points) == [*ends, style.MUTED]
    assert colours.names == {"off": style.MUTED}
    assert not isinstance(colours.norm, LogNorm)


def test_a_number_over_more_than_a_decade_gets_a_logarithmic_scale(make_row) -> None:
    rows = [make_row("0", 1, 0.5, 1.0, **{"training.lr": value}) for value in (0.001, 0.01, 0.1)]
    colours = style.colours(pa.Table.from_pylist(rows, schema=SCHEMA), "training.lr")
    assert isinstance(colours.norm, LogNorm)
    assert colours.points[1] == to_hex(colormaps["viridis"](0.5))


def test_names_get_distinct_colours_of_the_palette(hand_run: Run) -> None:
    points = front_table(hand_run.table)
    colours = style.colours(points, "activation")
    assert set(colours.names) == {"lwta", "relu"}
    assert len(set(colours.names.values())) == 2
    assert set(colours.names.values()) <= set(style.OKABE_ITO)
    assert list(colours.points) == [colours.names[name] for name in points["activation"].to_pylist()]


@pytest.mark.parametrize("kind", [recipe.Activation, recipe.GateMode, recipe.Norm])
def test_the_palette_has_a_colour_for_each_name(kind) -> None:
    assert len(get_args(kind)) <= len(style.OKABE_ITO)


def test_an_unknown_field_is_answered_with_the_choices(hand_run: Run) -> None:
    with pytest.raises(UserError, match=r"must be one of activation, .*, but got 'lr'") as error:
        style.colours(front_table(hand_run.table), "lr")
    assert all(name in str(error.value) for name in RECIPE_COLUMNS)


def test_a_field_that_is_off_everywhere_colours_nothing(hand_run: Run) -> None:
    with pytest.raises(UserError, match=r"'pni.alpha' is off in all"):
        style.colours(front_table(hand_run.table), "pni.alpha")
