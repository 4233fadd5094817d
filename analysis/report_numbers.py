"""The numbers of a report that no other figure has: what a run cost and attained for it, what varied, what failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from robustsearch.pareto import above_floor, is_front, is_measured, normalised_hypervolume
from robustsearch.results import FAILED

from .fields import Field, fields
from .front_text import Row
from .importance_figure import text

TIMES = {"train_s": "training", "eval_s": "evaluation at the rungs", "latency_s": "timing alone"}
"""Column with the seconds of a trial so far, to what they were spent on."""


@dataclass(frozen=True)
class Step:
    """What the run had spent and attained when a rung was measured."""

    seconds: float
    """Time of all trials together, up to their last rung: that of one worker."""
    epochs: int
    """Trained by all trials together, up to their last rung."""
    attained: float
    """Robust accuracy within a latency budget, averaged over budgets (`normalised_hypervolume`), in [0, 1]."""


def history(table: pa.Table) -> list[Step]:
    """A step for each rung that was measured, in the order of time.

    Budgets are from the plain network's p50; of a run without one, from that of the fastest network of all.
    """
    rows = sorted((row for row in table.to_pylist() if is_measured(row)), key=_moment)
    plain = [row["latency_p50"] for row in rows if row["role"] == "baseline"]
    base = plain[0] if plain else min((row["latency_p50"] for row in rows), default=1.0)
    last: dict[str, Row] = {}
    seconds, epochs, front = 0.0, 0, np.empty((0, 2))
    found = []
    for row in rows:
        before = last.get(row["trial"], {})
        seconds += sum((row[name] or 0.0) - (before.get(name) or 0.0) for name in TIMES)
        epochs += row["epoch"] - before.get("epoch", 0)
        last[row["trial"]] = row
        if row["role"] == "search":
            front = np.concatenate([front, [[-row["robust"], row["latency_p50"]]]])
            front = front[above_floor(front)]
            front = front[is_front(front)]
        found.append(Step(seconds, epochs, normalised_hypervolume(front, base)))
    return found


def _moment(row: Row) -> tuple[float, str, int]:
    """When a row was written; rows of one moment are in the order of the table."""
    return (row["time"].timestamp() if row["time"] else 0.0, row["trial"], row["epoch"])


def spent(run_table: pa.Table, evaluations: pa.Table) -> dict[str, float]:
    """Seconds of all trials together, by what they were spent on, as far as it was measured."""
    last: dict[str, Row] = {}
    for row in run_table.to_pylist():  # sorted by epoch
        if is_measured(row):
            last[row["trial"]] = row
    found = {what: sum(row[name] or 0.0 for row in last.values()) for name, what in TIMES.items()}
    examined = evaluations.select(["eval_s", "checks_s", "latency_s"]).to_pylist()
    return found | {
        "the full protocol and other evaluations": sum(
            (row["eval_s"] or 0) + (row["latency_s"] or 0) for row in examined
        ),
        "masking checks": sum(row["checks_s"] or 0.0 for row in examined),
    }


def states(table: pa.Table) -> dict[str, int]:
    """State to the number of trials that came to it; a trial has one."""
    last = {row["trial"]: row["state"] for row in table.select(["trial", "state"]).to_pylist()}
    found: dict[str, int] = {}
    for state in last.values():
        found[state or "unknown"] = found.get(state or "unknown", 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def varied(table: pa.Table) -> list[Field]:
    """The fields of the recipe that the search varied, over its trials, failed ones too."""
    searched: dict[str, int] = {}
    for place, row in enumerate(table.select(["trial", "role"]).to_pylist()):
        if row["role"] == "search":
            searched[row["trial"]] = place
    return fields(table.take(pa.array(list(searched.values()), type=pa.int64())))


def domain(field: Field) -> str:
    """What values a field had: levels, or a range; and in how many trials it had none."""
    known = [value for value in field.values if value is not None]
    if field.levels is not None:
        shown = ", ".join(text(level) for level in field.levels)
    else:
        shown = f"{text(min(known))} to {text(max(known))}"
    off = int(field.off.sum())
    return shown + (f"; off in {off} of {len(field.values)} trials" if off else "")


def failed(table: pa.Table) -> list[tuple[str, str, list[str]]]:
    """State, reason and trials of each kind of failure, the most common first."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in table.select(["trial", "state", "reason"]).to_pylist():
        if row["state"] in FAILED:
            trials = found.setdefault((row["state"], row["reason"] or "no reason recorded"), [])
            trials += [] if row["trial"] in trials else [row["trial"]]
    return sorted(((*key, trials) for key, trials in found.items()), key=lambda item: -len(item[2]))


def examined(evaluations: pa.Table) -> Iterator[tuple[Row, list[dict[str, Any]]]]:
    """Each evaluation of a trial's own network with masking checks, and these."""
    for row in evaluations.to_pylist():
        if row["variant"] is None and row["checks"]:
            try:
                checks = json.loads(row["checks"])
            except ValueError:
                continue
            if isinstance(checks, list) and all(isinstance(check, dict) for check in checks):
                yield row, checks
