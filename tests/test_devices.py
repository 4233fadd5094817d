"""Which latencies are compared: by hand, and that nothing of another device gets onto a front."""

from __future__ import annotations

import itertools
from typing import Any

import pyarrow as pa
import pytest

from robustsearch.devices import TIMED, comparable, is_comparable, reference_device
from robustsearch.membership import by_point
from robustsearch.results import SCHEMA


def row(device: str | None, role: str = "search", latency: float | None = 1.0) -> dict[str, Any]:
    return {"device": device, "role": role, "latency_p50": latency}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], None),
        ([row("A")], "A"),
        ([row("A"), row("B"), row("B")], "B"),
        ([row("A"), row("B"), row("B"), row("A", "baseline")], "A"),
        ([row("B"), row("A")], "A"),
        ([row("A", "baseline", None), row("B")], "B"),
        ([row(None), row("B")], "B"),
    ],
)
def test_the_reference_is_the_baseline_s_device_or_that_of_most(
    rows: list[dict[str, Any]], expected: str | None
) -> None:
    for order in itertools.permutations(rows):
        assert reference_device(order) == expected


def test_a_row_is_compared_on_its_own_device_alone() -> None:
    assert is_comparable(row("A"), "A")
    assert not is_comparable(row("B"), "A")
    assert is_comparable(row(None), "A")
    assert is_comparable(row("B"), None)


def measured(trial: str, device: str, latency: float, role: str = "search") -> dict[str, Any]:
    more = {"epoch": 4, "robust": 0.5, "latency_p95": latency, "throughput": 9.0, "feasible": True, "digest": trial}
    return row(device, role, latency) | more | {"trial": trial, "recipe": "{}"}


def test_other_devices_keep_their_accuracy_and_lose_their_timings() -> None:
    rows = [measured("baseline", "A", 2.0, "baseline"), measured("0000", "A", 1.0), measured("0001", "B", 0.1)]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    ours, kept, other = comparable(table).to_pylist()
    assert (ours, kept) == tuple(table.to_pylist()[:2])
    assert other == table.to_pylist()[2] | dict.fromkeys(TIMED)
    assert comparable(table).schema == SCHEMA
    assert comparable(comparable(table)).equals(comparable(table))
    assert comparable(table.slice(0, 2)).equals(table.slice(0, 2))
    assert comparable(SCHEMA.empty_table()).num_rows == 0
    assert list(by_point(rows)) == [("0000", 4)]
