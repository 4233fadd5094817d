"""The numbers of an ablation: per row and column the mean over seeds, and the difference from a reference row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustsearch import events, results
from robustsearch.ablation.designs import BASE
from robustsearch.ablation.paths import START, step_of
from robustsearch.ablation.statistics import Effects, adjusted, mean, paired
from robustsearch.errors import RunError

from .load import Run
from .table_columns import COLUMNS, FINAL, FINAL_SPLIT, PLAIN, REPORT, TABLE_1, TABLE_2, Column, Layout
from .table_places import Place, places

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """What the trials of a design measured, each at its last epoch."""

    rows: list[str]
    """In the order of the design."""
    seeds: list[int]
    values: dict[str, Array]
    """Column to its values, rows by seeds; NaN where there is none. Columns that no trial has are absent."""
    images: dict[str, int | None]
    """Column to the images behind each value; None for latency."""
    protocols: set[str]
    masked: list[str]
    """Trials in which a masking check failed."""
    finals: list[dict[str, Any]]
    """Their last evaluations, those behind the adaptive columns."""
    places: list[Place]
    """What a gaining path tried, rows that were never measured included; empty for any other design."""
    failed: dict[str, int]
    """Row to the number of its trials that failed."""

    @property
    def stood(self) -> list[str]:
        """The rows but for those that a gaining path did not take."""
        left = {row for place in self.places for row in place.tried if row != place.taken}
        return [row for row in self.rows if row not in left]

    def only(self, rows: Sequence[str]) -> Measured:
        """The same of these rows alone."""
        kept = [self.rows.index(row) for row in rows]
        return replace(self, rows=list(rows), values={name: array[kept] for name, array in self.values.items()})


@dataclass(frozen=True)
class Cell:
    """One row's value of one column. Accuracies and their differences are shares in [0, 1], latencies ms.

    The difference is from the reference row, seed by seed; of a latency it is the ratio. What cannot be estimated is
    NaN: intervals of a single seed, the difference of the first row from itself.
    """

    mean: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    p: float
    """Of the difference, corrected for the number of rows (Holm)."""
    seeds: int
    """That were measured."""


Numbers = dict[str, dict[str, Cell]]
"""Row to column to cell."""


def measured(run: Run) -> Measured:
    """The values of every row that was measured.

    Raises:
        RunError: the run is none of a design, or nothing of it was measured.
    """
    last: dict[str, dict[int, dict[str, Any]]] = {}
    failed: Counter[str] = Counter()
    for row in run.table.to_pylist():
        found = re.fullmatch(rf"(.+)-s{row['seed']}", row["trial"])
        if row["robust"] is None:
            failed[found[1] if found else row["trial"]] += row["state"] in results.FAILED
            continue
        if not found:
            raise RunError(f"a table needs the run of a design, with trials named ROW-sSEED, but got {row['trial']!r}")
        last.setdefault(found[1], {})[row["seed"]] = row  # rows come by epoch
    if not last:
        raise RunError(f"a table needs trials that were measured, but {run.name} has none yet")
    every = [row for trials in last.values() for row in trials.values()]
    evaluations = _final_evaluations(run)
    finals = [evaluations[key] for row in every if (key := (row["trial"], row["epoch"])) in evaluations]
    for row in every:
        final = evaluations.get((row["trial"], row["epoch"]), {})
        row |= {f"final.{name}": value for name, value in final.items()}
    asked, ended = _asked(run)
    names = [name for name in dict.fromkeys([*asked, *last]) if name in last]
    seeds = sorted({seed for trials in last.values() for seed in trials})
    values = {
        name: np.array([[_value(column, last[row].get(seed, {})) for seed in seeds] for row in names])
        for name, column in COLUMNS.items()
    }
    values = {name: array for name, array in values.items() if np.isfinite(array).any()}
    return Measured(
        names,
        seeds,
        values,
        {name: _images(COLUMNS[name], every) for name in values},
        {str(row["protocol"]) for row in every},
        sorted({row["trial"] for row in every if row["masked"]}),
        finals,
        places(asked, ended=ended),
        failed,
    )


def _final_evaluations(run: Run) -> dict[tuple[str, int], dict[str, Any]]:
    """The evaluations of the adaptive columns by trial and epoch; of trials, not of their variants."""
    found = results.read(run.files.evaluations).to_pylist()
    wanted = (FINAL, FINAL_SPLIT, None)
    return {
        (row["trial"], row["epoch"]): row for row in found if (row["protocol"], row["split"], row["variant"]) == wanted
    }


def numbers(found: Measured) -> Numbers:
    """The cells of every row and column."""
    table: Numbers = {name: {} for name in found.rows}
    for column, values in found.values.items():
        cells = _cells(COLUMNS[column], values, found.images[column], references(found.rows, found.stood))
        for name, cell in zip(found.rows, cells, strict=True):
            table[name][column] = cell
    return table


def references(rows: Sequence[str], stood: Sequence[str] | None = None) -> list[int]:
    """For each row the one that it is compared with: on a path the row before, else the first.

    A path that tried several rows at a place has taken those in `stood`; without it every row was taken.
    """
    steps = [step_of(row) for row in rows]
    if rows[0] != START or None in steps[1:]:
        return [0] * len(rows)
    at = [step[0] if step else 0 for step in steps]
    taken = [index for index, row in enumerate(rows) if stood is None or row in stood]
    return [max((index for index in taken if at[index] < place), default=0) for place in at]


def layouts(found: Measured) -> list[Layout]:
    """The tables to show; the report's two where the rows are the report's and so is the protocol."""
    if found.protocols == {"report"} and set(found.rows) <= set(REPORT):
        return [TABLE_1, TABLE_2] if "pgd_l2" in found.values else [TABLE_1]
    return [PLAIN]


def reference_name(rows: Sequence[str]) -> str:
    """What the rows are compared with, in words."""
    if references(rows)[-1]:
        return "the row before"
    return "the base" if rows[0] == BASE else rows[0]


def _value(column: Column, row: dict[str, Any]) -> float:
    parts = [row.get(part) for part in column.parts]
    return float("nan") if any(part is None for part in parts) else float(sum(parts))  # type: ignore[arg-type]


def _images(column: Column, rows: list[dict[str, Any]]) -> int | None:
    if column.timed:
        return None
    name = "final.n" if column.parts[0].startswith("final.") else "n"
    return min(int(row[name]) for row in rows if row.get(name) is not None)


def _cells(column: Column, values: Array, images: int | None, reference: list[int]) -> list[Cell]:
    """The cells of a column from its values, rows by seeds."""
    parts = len(column.parts)
    # The mean of two accuracies on the same images varies by at most what one of that size does.
    scale = np.log(values) if column.timed else values / parts
    means, differences = mean(scale, images=images), paired(scale, scale[reference], images=images)
    p = np.full(len(values), np.nan)
    p[1:] = adjusted(differences.p[1:])
    own, other = (_unscaled(effects, column.timed) for effects in (means, differences))
    other[:, 0] = np.nan
    known = np.isfinite(scale)
    seeds = known.sum(axis=1)
    average = np.where(known, scale, 0).sum(axis=1) / np.where(seeds, seeds, np.nan)
    own[0] = np.exp(average) if column.timed else average  # of a single seed too
    if not column.timed:
        own, other = parts * own.clip(0, 1), parts * other
    cells = []
    for place in range(len(values)):
        (here, low, high), (more, more_low, more_high) = own[:, place].tolist(), other[:, place].tolist()
        cells.append(Cell(here, low, high, more, more_low, more_high, float(p[place]), int(seeds[place])))
    return cells


def _unscaled(effects: Effects, timed: bool) -> Array:
    """Effect, low and high as rows, out of logarithms where the column is timed."""
    found = np.array([effects.effect, effects.low, effects.high])
    return np.exp(found) if timed else found


def _asked(run: Run) -> tuple[dict[str, dict[str, Any]], bool]:
    """Rows and their recipes in the order in which the run asked for them, and whether it has ended."""
    log, _ = events.read(run.files.events_file)
    found: dict[str, dict[str, Any]] = {}
    for event in log:
        if event.kind == "ask":
            found.setdefault(re.sub(r"-s\d+$", "", str(event.trial)), event.data.get("recipe", {}))
    return found, bool(log) and log[-1].kind == "end"
