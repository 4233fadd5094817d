"""The sections of a run's report, as HTML; what they show of the run is escaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import timedelta
from html import escape

import numpy as np
import pyarrow as pa

from robustsearch.errors import RecipeError, RunError
from robustsearch.pareto import OBJECTIVES, SPAN, above_floor, is_front, objectives
from robustsearch.recipe import Recipe

from . import traces
from .explore import shared_settings
from .fields import fields
from .front_page import HEADS, table_row
from .front_text import Row, interval, length, masking, percent
from .importance import EXPLAINED, PARALLEL, SHOWN, SLICED, SLICES, terms
from .importance_figure import draw_parallel, draw_shares, draw_slices
from .importance_numbers import Values, comparable, importance
from .load import Run
from .page import definitions, figure, table
from .report_figure import CURVES, draw_curves, draw_history, image
from .report_numbers import domain, examined, failed, history, spent, states, varied

LISTED = 12
"""Trials that are named of each kind of failure."""


def space(run: Run, points: pa.Table | None) -> str:
    """What was varied, over which values, and what all trials share."""
    found = varied(run.table)
    rows = [[escape(field.label), escape(domain(field)), escape(", ".join(field.also))] for field in found]
    asked = definitions(
        [
            ("space", str(run.info.get("space") or "")),
            ("dataset", str(run.info.get("dataset") or "")),
            ("settings", ", ".join(f"{name} {value}" for name, value in _asked(run))),
        ]
    )
    body = (
        table(
            "What differs between the trials",
            ("field", "values", "says the same"),
            rows,
            name="space-table",
            kind="prose",
        )
        if rows
        else "<p>All trials have the same recipe.</p>\n"
    )
    if points is not None:
        same = definitions(shared_settings(points).items())
        body += f"<details><summary>Settings that all points of the search share</summary>\n{same}</details>\n"
    return asked + body


def _asked(run: Run) -> list[tuple[str, object]]:
    """The settings of the run that are numbers or names, as it was asked."""
    settings = run.info.get("settings")
    known = settings if isinstance(settings, dict) else run.info
    names = ("trials", "epochs", "seed", "seeds", "sampler", "scheduler", "eta", "grace", "repeats", "max_latency")
    return [(name.replace("_", " "), known[name]) for name in names if known.get(name) is not None]


def protocol(run: Run) -> str:
    """How it was measured, and on what."""

    def seen(column: str, text: Callable[[object], str] = str) -> str:
        values = sorted({value for value in run.table[column].to_pylist() if value is not None})
        return ", ".join(text(value) for value in values[:6]) + (" …" if len(values) > 6 else "")

    recorded = run.info.get("versions")
    versions = recorded if isinstance(recorded, dict) else {}
    return definitions(
        [
            ("protocol", seen("protocol") or str(run.info.get("protocol") or "")),
            ("images", seen("n")),
            ("fresh draws", seen("scoring_draws")),
            ("split", seen("split")),
            ("l∞ radius", seen("epsilon", lambda value: length(float(str(value))))),
            ("l2 budget", seen("epsilon_l2", lambda value: f"{value:.4g}")),
            ("rungs", seen("epoch")),
            ("trained on", seen("device")),
            (
                "timed with",
                ", ".join(
                    filter(None, (seen("engine"), (t := seen("threads")) and f"{t} thread{'' if t == '1' else 's'}"))
                ),
            ),
            ("driver", str(run.info.get("driver") or run.info.get("device") or "")),
            ("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
        ]
    )


def cost(run: Run) -> str:
    """Where the time went, and what was attained for it."""
    pairs = [(what, _duration(seconds)) for what, seconds in spent(run.table, run.evaluations).items() if seconds]
    counts = ", ".join(f"{count} {state}" for state, count in states(run.table).items())
    body = definitions([("trials", counts), *pairs])
    steps = history(run.table)
    if not steps:
        return body + "<p>Nothing was measured, so nothing was attained.</p>\n"
    last = steps[-1]
    words = (
        f"Attained {percent(last.attained)}% after {_duration(last.seconds)} and {last.epochs} epochs of training, all "
        "trials together. It is the robust accuracy within a latency budget, averaged over budgets from the plain "
        f"network's to {SPAN:g} times that (a normalised hypervolume)."
    )
    return body + figure(image(draw_history(steps), "What was attained, over the time of all trials"), words)


def moved(run: Run) -> str:
    """What moves the objectives, where there are trials enough to say so."""
    try:
        rows = comparable(run.table)
        found = fields(rows)
        if not found:
            raise RunError("importance needs a field that differs between trials")
    except RunError as error:
        return f"<p>Not shown: {escape(str(error))}.</p>\n"
    shares = importance(rows, found)
    order = list(dict.fromkeys(shares["field"].to_pylist()))
    found.sort(key=lambda field: order.index(field.name))
    values: dict[str, Values] = {name: rows[name].to_numpy() for name in OBJECTIVES}
    points = objectives(rows)
    front = is_front(np.where(above_floor(points)[:, None], points, np.nan))
    figures = (
        (draw_shares(shares, found[:SHOWN], ""), "Share of variance that each field explains", EXPLAINED, False),
        (draw_slices(found[:SLICED], values, ""), "Objectives over each important field", SLICES, True),
        (draw_parallel(found[:SLICED], values, front, ""), "Trials over the important fields", PARALLEL, True),
    )
    parts = [figure(image(drawn, words, dense=dense), text, wide=words) for drawn, words, text, dense in figures]
    return f"<p>{escape(terms(run, rows))}</p>\n" + "".join(parts)


def masks(run: Run) -> str:
    """The verdicts of the masking checks on the front, check by check."""
    found = list(examined(run.evaluations))
    if not found:
        return (
            "<p>No network of this run has met the masking checks yet: "
            "<code>python -m robustsearch.evaluate RUN</code> runs them on the front.</p>\n"
        )
    rows, failing = [], []
    for row, checks in found:
        bad = [check for check in checks if not check.get("passed")]
        verdict = "fails " + ", ".join(str(check.get("name")) for check in bad) if bad else f"passes {len(checks)}"
        cells = (str(row["epoch"]), row["protocol"] or "", row["split"] or "", str(row["n"]), interval(row), verdict)
        rows.append([escape(text) for text in (row["trial"], *cells)])
        failing += [(f"{row['trial']}, {check.get('name')}", str(check.get("reason"))) for check in bad]
    heads = ("trial", "epoch", "protocol", "split", "images", "robust [95%] (%)", "checks")
    names = list(dict.fromkeys(str(check.get("name")) for _, checks in found for check in checks))
    detail = []
    for row, checks in found:
        known = {str(check.get("name")): check for check in checks}
        detail.append([escape(f"{row['trial']} ({row['split']})"), *(_check(known.get(name)) for name in names)])
    return (
        table("Members of the front under the masking checks", heads, rows, name="masks-table")
        + (definitions(failing) if failing else "")
        + "<details><summary>Each check: value (threshold)</summary>\n"
        + table("Each check: value (threshold)", ("trial", *names), detail, name="checks-table")
        + "</details>\n"
    )


def _check(check: dict[str, object] | None) -> str:
    """Value and threshold of a check, the failed ones marked."""
    if check is None:
        return "–"
    value, threshold = (
        f"{number:.3g}" if isinstance(number, int | float) and math.isfinite(number) else "–"
        for number in (check.get("value"), check.get("threshold"))
    )
    text = escape(f"{value} ({threshold})")
    return text if check.get("passed") else f"<strong>{text} fails</strong>"


def curves(run: Run, front: Sequence[Row]) -> str:
    """How the front learnt."""
    trials = list(dict.fromkeys(row["trial"] for row in reversed(front)))[:CURVES]
    if not trials:
        return "<p>There is no front whose learning could be shown.</p>\n"
    rows: dict[str, list[Row]] = {trial: [] for trial in trials}
    for row in run.table.to_pylist():
        if row["trial"] in rows and row["robust"] is not None:
            rows[row["trial"]].append(row)
    logs = {trial: traces.read(run.files.fetched_trial(trial)) for trial in trials}
    more = "" if any(log.loss for log in logs.values()) else " The run holds no TensorBoard logs of them."
    return figure(
        image(draw_curves(rows, logs), f"Learning curves of {', '.join(trials)}"),
        f"{', '.join(trials)}, the most robust first. Above: mean training objective of each epoch. Below: accuracy on "
        f"validation images at the rungs.{more}",
    )


def failures(run: Run) -> str:
    """What failed, and why."""
    rows = []
    for state, reason, trials in failed(run.table):
        more = f" and {len(trials) - LISTED} more" if len(trials) > LISTED else ""
        rows.append([escape(state), str(len(trials)), escape(", ".join(trials[:LISTED]) + more), escape(reason)])
    if not rows:
        return "<p>No trial failed.</p>\n"
    shown = table(
        "Failures, the most common first", ("state", "trials", "which", "reason"), rows, name="failures-table"
    )
    return shown.replace("<td>", '<td class="long">')


def everything(points: pa.Table) -> str:
    """All points, to sort and to search."""
    rows = []
    for row in points.to_pylist():
        *cells, button = table_row(row)
        rows.append([*cells, escape(described(row)), button])
    heads = (*HEADS[:-1], "defence", "")
    shown = table("All measured points; a head sorts", heads, rows, name="points-table", kind="sortable")
    return (
        '<p class="controls"><label for="search">Show rows with</label> '
        '<input id="search" type="search" data-filters="points-table" placeholder="LWTA-2 mean passes"></p>\n'
        + shown.replace('class="scroll"', 'class="scroll tall"')
    )


def described(row: Row) -> str:
    """The defence of a row in a few words; nothing where its recipe is one that this version does not know."""
    try:
        return Recipe.from_json(row["recipe"]).describe() if row["recipe"] else ""
    except (RecipeError, ValueError):
        return ""


def commands(run: Run) -> str:
    """What makes this run, its checks and this page again."""
    folder, logs = run.place, run.files.public(run.files.trials)
    lines = [
        ("the run again", str(run.info.get("command") or "not recorded")),
        ("every decision of the search again, from its log", f"python -m robustsearch.replay {folder}"),
        ("the front again, on the test set", f"python -m robustsearch.evaluate {folder}"),
        ("the figures for paper", f"python -m analysis.pareto {folder} && python -m analysis.importance {folder}"),
        ("this page", f"python -m analysis.report {folder}"),
        ("training and layers of each trial", f"tensorboard --logdir {logs}"),
    ]
    return "".join(f'<p>{escape(what)}:</p>\n<pre tabindex="0">{escape(line)}</pre>\n' for what, line in lines)


def summary(run: Run, points: pa.Table | None, front: Sequence[Row]) -> str:
    """What was asked, and the answer in a sentence or two."""
    where = run.info.get("dataset") or "an unknown dataset"
    question = f"Which recipes are the most robust at each latency, on {where}?"
    what = str(run.info.get("summary") or f"Space {run.info.get('space') or 'unknown'}.")
    answer = "No point of the search was measured, so there is no front."
    if front and points is not None:
        best = max(front, key=lambda row: float(row["robust"]))
        searched = points["role"].to_pylist().count("search")  # not the baseline
        answer = (
            f"{len(front)} of {searched} measured points are on the front. The most robust, trial "
            f"{best['trial']} ({described(best)}), has {interval(best)}% robust accuracy. Its masking checks: "
            f"{masking(best)}."
        )
    return f"<p>{escape(what)} <strong>{escape(question)}</strong></p>\n<p>{escape(answer)}</p>\n"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
