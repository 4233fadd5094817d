"""Latency is compared within one device type only, and this is the rule that says which one.

A row of the results names the device that it was timed on. Where those of a run differ (nodes that were lost and
replaced by others, a run resumed elsewhere), its latencies are compared on the device of the baseline, against whose
latency all others are set; without one, on that of most rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute

TIMED = ("latency_p50", "latency_p95", "throughput", "feasible")
"""Columns of the results that say something of the device."""


def reference_device(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """The device type whose latencies are compared; None where no row was timed."""
    timed = [row for row in rows if row.get("latency_p50") is not None and row.get("device") is not None]
    plain = [row for row in timed if row.get("role") == "baseline"]
    counts = Counter(str(row["device"]) for row in plain or timed)
    return min(counts, key=lambda device: (-counts[device], device), default=None)


def is_comparable(row: Mapping[str, Any], reference: str | None) -> bool:
    """Whether a row's latency may be set against those of the reference device; a row that names none may."""
    return reference is None or row.get("device") in (None, reference)


def comparable(table: pa.Table) -> pa.Table:
    """The rows of a results table, without the timings that cannot be compared with those of the reference device."""
    rows = table.select(["role", "device", "latency_p50"]).to_pylist()
    reference = reference_device(rows)
    kept = pa.array([is_comparable(row, reference) for row in rows], type=pa.bool_())
    if pa.compute.all(kept).as_py() is not False:
        return table
    for name in TIMED:
        index = table.schema.get_field_index(name)
        field = table.schema.field(index)
        table = table.set_column(index, field, pa.compute.if_else(kept, table[name], pa.scalar(None, field.type)))
    return table
