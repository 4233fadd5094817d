"""A run folder in whatever condition it is: what can be read of it, and what a reader of its page must know.

`load` is for finished runs and refuses the others. Here a run may be empty, still running, half-written, of an older
schema, or without a front; each of these is a note in plain words.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robustsearch import events, results
from robustsearch.devices import comparable
from robustsearch.errors import RunError
from robustsearch.runfolder import RunFolder

from .load import TIMED, Run, untimely

ESSENTIAL = {"trial", "epoch", "role", "state", "robust", "latency_p50"}
"""Columns without which a file is none of ours."""


def open_anyway(folder: Path) -> tuple[Run, list[str]]:
    """What a run folder holds, and notes on what is missing.

    Raises:
        RunError: nothing in the folder says that it is a run's.
    """
    place = RunFolder.fetched(folder)
    traces = (place.info_file, place.events_file, place.results)
    if not any(path.exists() for path in traces):
        raise RunError(f"`RUN` must be the folder of a run, but {folder} has no run.json, no events and no results")
    notes: list[str] = []
    info: Mapping[str, Any] = {}
    try:
        info = place.info()
    except RunError as error:
        notes.append(f"What was asked is not known: {error}.")
    table = _table(place.results, notes, "results")
    evaluations = _table(place.evaluations, notes, "evaluations")
    run = Run(place, info, comparable(results.with_verdicts(table, evaluations)), evaluations)
    notes += _progress(place)
    if not table.num_rows:
        notes.append("Nothing has been measured yet: the run has no results.")
    return run, notes


def _table(folder: Path, notes: list[str], what: str) -> pa.Table:
    """The rows of all files that can be read; notes say which cannot, and which are of another schema."""
    damaged: list[str] = []
    missing: dict[str, int] = {}
    whole = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            names = set(pq.read_schema(path).names)
            if not names >= ESSENTIAL:
                raise pa.ArrowInvalid(f"no column {', '.join(sorted(ESSENTIAL - names))}")
        except (OSError, pa.ArrowException) as error:
            damaged.append(_because(path, error))
            continue
        whole.append(path)
        for name in set(results.SCHEMA.names) - names:
            missing[name] = missing.get(name, 0) + 1
    try:
        table = results.read_files(whole)
    except RunError:
        table = _one_by_one(whole, damaged)
    if damaged:
        notes.append(f"Left out, as these files of {what}/ cannot be read: {_some(damaged)}.")
    if missing:
        names_ = [name for name in results.SCHEMA.names if name in missing]
        notes.append(
            f"Written by another version of robustsearch: up to {max(missing.values())} files of {what}/ lack columns, "
            f"which are shown as missing values: {_some(names_)}."
        )
    table, untimed = untimely(table)
    if untimed:
        notes.append(f"Left out of {what}/, as {TIMED}: {_some(untimed)}.")
    return table


def _one_by_one(paths: list[Path], damaged: list[str]) -> pa.Table:
    """The rows of those files that can be read; the others are named in `damaged`."""
    tables = [results.SCHEMA.empty_table()]
    for path in paths:
        try:
            tables.append(results.read_files([path]))
        except RunError as error:
            damaged.append(_because(path, error))
    return pa.concat_tables(tables)


def _because(path: Path, error: Exception) -> str:
    first_line = str(error).partition("\n")[0]
    return f"{path.name} ({first_line})"


def _progress(place: RunFolder) -> list[str]:
    """Whether the run has come to its end, from its event log."""
    try:
        log, _ = events.read(place.events_file)
    except RunError as error:
        return [f"Whether the run has ended is not known: {error}."]
    if not log:
        return ["The run has no event log, so it is not known whether it has ended."]
    if log[-1].kind == "end":
        return []
    running = {event.trial for event in log if event.kind == "ask"}
    running -= {event.trial for event in log if event.kind in ("tell", "stop", "fail")}
    trials = f"{len(running)} trial{'' if len(running) == 1 else 's'} still going"
    return [
        f"This run has not ended: {trials}, last heard of at {log[-1].time}. This page shows what was measured until "
        f"then. If it was interrupted, it goes on with --resume --name {place.name}."
    ]


def _some(names: list[str], most: int = 8) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
