"""The numbers of an ablation: per row and column the mean over seeds, and the difference from the first row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robustsearch import events
from robustsearch.ablation.statistics import Effects, adjusted, mean, paired
from robustsearch.errors import RunError
from robustsearch.runfolder import RunFolder

from .load import Run

ACCURACIES = {"natural": "natural", "pgd": "PGD", "fgsm": "FGSM", "cw": "CW", "robust": "robust"}
"""Column of the results to its heading; shares in [0, 1]."""
LATENCY = "latency_p50"
COLUMNS = (*ACCURACIES, LATENCY)

REPORT = {
    # Table 1 of "Robustness of Neural Networks" (2024), local test on CIFAR-10: natural, PGD, FGSM, CW, in %.
    "regular-training": (63.67, 1.37, 0.98, 34.08),
    "noise-injection": (57.42, 1.07, 1.37, 26.46),
    "smoothing": (57.81, 1.07, 2.34, 29.59),
    "smoothing-pgd": (62.89, 0.39, 5.27, 26.86),
    "smoothing-pgd-fgsm": (56.64, 0.39, 6.54, 23.67),
    "smoothing-pgd-fgsm-cw": (58.98, 0.59, 6.35, 34.08),
    "smoothing-pgd-fgsm-cw-noise-injection": (59.12, 14.26, 53.28, 56.9),
    "stochastic-lwta": (67.9, 36.23, 11.33, 68.75),
}


@dataclass(frozen=True)
class Cell:
    """One row's value of one column. Accuracies and their differences are shares in [0, 1], latencies ms.

    The difference is from the table's first row, seed by seed; of a latency it is the ratio. What cannot be estimated
    is NaN: intervals of a single seed, the difference of the first row from itself.
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
    published: float | None
    """In the report's table, as a share; None where it has none."""


CLEARLY = 0.02
"""Difference of two accuracies that a note is made of."""

Numbers = dict[str, dict[str, Cell]]
"""Row to column to cell."""


def numbers(run: Run) -> Numbers:
    """The cells of every row that was measured, rows in the order of the design; each trial at its last epoch.

    Raises:
        RunError: the run is none of a design, or nothing of it was measured.
    """
    last: dict[str, dict[int, dict[str, object]]] = {}
    for row in run.table.to_pylist():
        if row["robust"] is None:
            continue
        if not (found := re.fullmatch(rf"(.+)-s{row['seed']}", row["trial"])):
            raise RunError(f"a table needs the run of a design, with trials named ROW-sSEED, but got {row['trial']!r}")
        last.setdefault(found[1], {})[row["seed"]] = row  # rows come by epoch
    if not last:
        raise RunError(f"a table needs trials that were measured, but {run.name} has none yet")
    names = sorted(last, key=_order(run, list(last)).index)
    seeds = sorted({seed for trials in last.values() for seed in trials})
    images = min(int(str(row["n"])) for trials in last.values() for row in trials.values())
    table: Numbers = {name: {} for name in names}
    for column in COLUMNS:
        values = np.array([[_number(last[name].get(seed, {}).get(column)) for seed in seeds] for name in names])
        for name, cell in zip(
            names, _cells(column, names, values, images, run.info.get("space") == "table1"), strict=True
        ):
            table[name][column] = cell
    return table


def notes(table: Numbers, run: Run) -> list[str]:
    """Where the columns of the run's protocol mislead, as far as its own numbers show."""
    found = []
    weaker = [name for name, cells in table.items() if cells["pgd"].mean > cells["fgsm"].mean + CLEARLY]
    if weaker:
        found.append(
            f"PGD leaves more than FGSM in {', '.join(weaker)}: an iterative attack that is weaker than one step of "
            "the same radius makes too few steps or follows a masked gradient, and measures no robustness."
        )
    harmless = [name for name, cells in table.items() if cells["cw"].mean > cells["natural"].mean - CLEARLY]
    if harmless:
        found.append(
            f"CW takes less than {100 * CLEARLY:g} points off the natural accuracy in {', '.join(harmless)}: it hardly "
            "attacks these networks, so its column says nothing about them."
        )
    if "report" in run.table["protocol"].to_pylist():
        found.append(
            "Protocol report: 3 PGD steps of 0.01 move a pixel by at most 0.03 of the allowed 0.3, and CW has c = "
            "1e-4. `robust` is the worst of its l_inf attacks, none of which adapts: for that, evaluate the run under "
            "standard or full."
        )
    masked = sorted({row["trial"] for row in run.table.to_pylist() if row["masked"]})
    if masked:
        found.append(f"Masking checks failed in {', '.join(masked)}.")
    return found


def _cells(column: str, names: Sequence[str], values: NDArray[np.float64], images: int, report: bool) -> list[Cell]:
    """The cells of a column from its values, rows by seeds."""
    timed = column == LATENCY
    scale = np.log(values) if timed else values
    count = None if timed else images
    means, differences = mean(scale, images=count), paired(scale, scale[0], images=count)
    p = np.full(len(names), np.nan)
    p[1:] = adjusted(differences.p[1:])
    own, other = (_unscaled(effects, timed) for effects in (means, differences))
    other[:, 0] = np.nan
    measured = np.isfinite(scale)
    seeds = measured.sum(axis=1)
    average = np.where(measured, scale, 0).sum(axis=1) / np.where(seeds, seeds, np.nan)
    own[0] = np.exp(average) if timed else average  # of a single seed too
    if not timed:
        own = own.clip(0, 1)
    cells = []
    for place, name in enumerate(names):
        published = None
        if report and name in REPORT and column in list(ACCURACIES)[:4]:
            published = REPORT[name][list(ACCURACIES).index(column)] / 100
        here, low, high = own[:, place].tolist()
        more, more_low, more_high = other[:, place].tolist()
        cells.append(Cell(here, low, high, more, more_low, more_high, float(p[place]), int(seeds[place]), published))
    return cells


def _unscaled(effects: Effects, timed: bool) -> NDArray[np.float64]:
    """Effect, low and high as rows, out of logarithms where the column is timed."""
    found = np.array([effects.effect, effects.low, effects.high])
    return np.exp(found) if timed else found


def _order(run: Run, names: list[str]) -> list[str]:
    """Names in the order in which the run asked for them; those it says nothing about last."""
    log, _ = events.read(RunFolder(run.folder).events_file)
    asked = [re.sub(r"-s\d+$", "", str(event.trial)) for event in log if event.kind == "ask"]
    return list(dict.fromkeys([*(name for name in asked if name in names), *names]))


def _number(value: object) -> float:
    return float(str(value)) if value is not None else np.nan
