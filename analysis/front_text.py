"""The words around a Pareto front: captions, labels and numbers as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute

from robustsearch.pareto import FLOOR, THIRD

from .front import SLACK, failures, front_hypervolume, front_rows, reference_latency, reference_third
from .load import Run

Row = dict[str, Any]


def caption(run: Run, points: pa.Table, third: str | None = None) -> str:
    """What stands below a figure of the front: its `terms`, and what is drawn."""
    sentences = [
        f"Colour: {third}" if third else "",
        "Bars: 95% interval of robust accuracy; latency from p50 to p95",
        "In brackets: probability of being on the front" if front_rows(points) else "",
    ]
    return " ".join([terms(run, points, third), *(f"{sentence}." for sentence in sentences if sentence)])


def terms(run: Run, points: pa.Table, third: str | None = None) -> str:
    """Under which terms a front is one: data, attack, trials, front, hypervolume, machine, seed."""
    unit, end = "accuracy × ms", f"{reference_latency(points):.4g} ms"
    if third:
        way = ("fewer" if third == "parameters" else "less") if THIRD[third] == "min" else "more"
        unit, end = f"{unit} × {third}", f"{end}, {reference_third(points, third):.4g} {third}"
    radius = _values(points, "epsilon", length) or length(run.info.get("epsilon"))
    data = [
        _values(points, "dataset") or run.info.get("dataset"),
        _values(points, "split"),
        radius and f"l∞ radius {radius}",
        (images := _values(points, "n")) and f"n = {images} images",
        (protocol := _values(points, "protocol") or run.info.get("protocol")) and f"protocol {protocol}",
    ]
    timing = [
        _values(points, "engine"),
        (threads := _values(points, "threads")) and f"{threads} thread{'' if threads == '1' else 's'}",
        _values(points, "device") or run.info.get("device"),
    ]
    timed = ", ".join(str(part) for part in timing if part)
    seed = run.info.get("seed")
    sentences = [
        ", ".join(str(part) for part in data if part),
        _counts(run.table, points),
        f"Third objective: {way} {third}" if third else "",
        f"Hypervolume {front_hypervolume(points, third):.4g} ({unit}), reference point robust accuracy 0 and "
        f"{end}, {SLACK:g} × the slowest point",
        f"Points below {FLOOR:g} × the best robust accuracy are no candidates",
        timed and f"Timed with {timed}",
        _elsewhere(run.table, points),
        "" if seed is None else f"Search seed {seed}",
        _repeats(points),
    ]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def point_label(row: Row) -> str:
    """The trial's name, the epoch where a later one was measured too, and how sure its place on the front is."""
    name = str(row["trial"]) if row["final"] else f"{row['trial']}, epoch {row['epoch']}"
    return f"{name} ({probability(row)})" if row["on_front"] else name


def probability(row: Row) -> str:
    """Probability of being on the front in %; a dash for the baseline."""
    chance = row["front_probability"]
    return "–" if chance is None else f"{100 * chance:.0f}%"


KINDS = ("Pareto front", "dominated", "earlier epoch", "fails a masking check")
"""What a point of the search can be, in the order of the legend."""


def kind(row: Row) -> str:
    """What a point is: one of `KINDS`, or the baseline's label. A failed masking check goes first."""
    if row["role"] != "search":
        return baseline_label(row)
    if row["masked"]:
        return KINDS[3]
    if row["on_front"]:
        return KINDS[0]
    return KINDS[1] if row["final"] else KINDS[2]


def is_drawn(row: Row) -> bool:
    """Whether a row of a `front_table` is in the figure: all of the search, and the baseline's last."""
    return bool(row["role"] == "search" or row["final"])


def has_bars(row: Row) -> bool:
    """Whether a point is drawn with its intervals: on the front and at the baseline only."""
    return bool(row["on_front"] or (row["role"] != "search" and row["final"]))


def baseline_label(row: Row) -> str:
    """What the baseline is: "plain ReLU WRN-34-1"."""
    activation = {"relu": "ReLU ", "lwta": "LWTA "}.get(row["activation"], "")
    depth, width = row["model.depth"], row["model.widen_factor"]
    return f"plain {activation}WRN-{depth}-{width}" if depth and width else "baseline"


def percent(share: float | None) -> str:
    """A share in % with one decimal; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f}"


def milliseconds(time: float | None) -> str:
    """A time in ms with at least three digits; a dash where there is none."""
    if time is None:
        return "–"
    return f"{time:.0f}" if time >= 100 else f"{time:#.3g}".rstrip(".")


def interval(row: Row) -> str:
    """Robust accuracy in %, with its 95% interval where it has one."""
    low, high = row["robust_low"], row["robust_high"]
    bounds = "" if low is None or high is None else f" [{percent(low)}, {percent(high)}]"
    return percent(row["robust"]) + bounds


def count(number: int | None) -> str:
    """A large number with its thousands apart; a dash where there is none."""
    return "–" if number is None else f"{number:,}"


def masking(row: Row) -> str:
    """Verdict of the masking checks."""
    return {True: "fails", False: "passes", None: "not run"}[row["masked"]]


def length(radius: float | None) -> str:
    """A radius in pixel units as papers write it: 0.1, but 8/255."""
    if radius is None:
        return ""
    parts = radius * 255
    short = float(f"{radius:.2g}") == radius
    return f"{parts:.0f}/255" if not short and parts > 0.5 and abs(parts - round(parts)) < 0.01 else f"{radius:.3g}"


def _values(points: pa.Table, column: str, text: Callable[[Any], str] = str) -> str:
    """A column's values as text: one, the range of numbers, or all names; empty where all are null."""
    found = sorted(set(points[column].to_pylist()) - {None})
    if len(found) > 2 and not isinstance(found[0], str):
        return f"{text(found[0])} to {text(found[-1])}"
    return " and ".join(text(value) for value in found)


def _counts(table: pa.Table, points: pa.Table) -> str:
    """How many trials, failures, points, points on the front, and how far those were checked for masking."""
    searched = table.filter(pa.compute.equal(table["role"], "search"))
    failed = ", ".join(f"{count} {state}" for state, count in sorted(failures(searched).items()))
    front = front_rows(points)
    masked, unchecked = (sum(row["masked"] is verdict for row in front) for verdict in (True, None))
    doubts = [f"{masked} failing a masking check"] if masked else []
    doubts += [f"{unchecked} not checked for masking"] if unchecked else []
    parts = [
        _plural(len(searched["trial"].unique()), "trial") + _bracketed(failed),
        _plural(points["role"].to_pylist().count("search"), "measured point"),
        f"{len(front)} on the front" + _bracketed(", ".join(doubts)),
    ]
    return ", ".join(parts)


def _repeats(points: pa.Table) -> str:
    """How many points have several seeds."""
    seeds = [count for count in points["seeds"].to_pylist() if count > 1]
    if not seeds:
        return ""
    counts = " to ".join(str(count) for count in sorted({min(seeds), max(seeds)}))
    return f"{_plural(len(seeds), 'point')} over {counts} training seeds, all others from one"


def _elsewhere(table: pa.Table, points: pa.Table) -> str:
    """How many rows were timed on another device type than the points, and are therefore none."""
    devices = set(points["device"].to_pylist())
    others = [row["device"] for row in table.to_pylist() if row["robust"] is not None and row["device"] not in devices]
    if not others:
        return ""
    rows = _plural(len(others), "measurement")
    return f"Latency is compared within one device type, which leaves out {rows} on {' and '.join(sorted(set(others)))}"


def _bracketed(text: str) -> str:
    return f" ({text})" if text else ""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
