"""The table for other tools: its page is that of the schema, and each line of it that reads a run does."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from robustsearch.analysis.columns import markdown
from robustsearch.results import COLUMNS, RECIPE_COLUMNS, SCHEMA, read

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
LINES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0].splitlines()


def test_the_page_is_of_this_schema() -> None:
    assert markdown() == PAGE, "run: python -m analysis.columns > docs/results.md"
    named = re.findall(r"^\| `([^`]+)` \|", PAGE, flags=re.MULTILINE)
    assert named == SCHEMA.names


def test_each_quantity_has_a_unit() -> None:
    """A number that is no share, no count and no name says its unit."""
    units = re.compile(
        r"\bms\b|\bs\b|images/s|pixel units|\[0, 1\]|share|nats|interval|epochs|images|draws|seed|votes|threads|"
        r"parameters|multiply-accumulates|predictions|probability|norm"
    )
    for name, (kind, text) in COLUMNS.items():
        if pa.types.is_floating(kind) or pa.types.is_integer(kind):
            assert units.search(text), (name, text)
    assert all(text for _, text in RECIPE_COLUMNS.values())


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.partition(".")[0])
def test_each_line_reads_a_run(line: str, hand_folder: Path) -> None:
    name = line.partition(".")[0]
    module = pytest.importorskip(name, reason=f"{name} is not installed")
    found: Any = eval(line.replace("runs/NAME", str(hand_folder)), {name: module})
    table = read(hand_folder / "results")
    if name == "duckdb":
        found = found.order("trial, epoch").to_arrow_table()
    elif name == "polars":
        found = found.sort("trial", "epoch").to_arrow()
    else:
        found = pa.Table.from_pandas(found.sort_values(["trial", "epoch"]), preserve_index=False)
    assert found.column_names == SCHEMA.names
    assert importlib.import_module(name).__version__
    for column in ("trial", "epoch", "robust", "latency_p50", "masked", "lwta.units", "training.lr"):
        ours, theirs = table[column].to_pylist(), found[column].to_pylist()
        assert theirs == pytest.approx(ours, nan_ok=True) if column != "masked" else theirs == ours
