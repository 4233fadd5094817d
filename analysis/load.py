"""A run folder, read back: its description and its results table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from robustsearch import results
from robustsearch.devices import comparable
from robustsearch.errors import RunError
from robustsearch.runfolder import RunFolder


@dataclass(frozen=True)
class Run:
    """What a run wrote."""

    files: RunFolder
    info: Mapping[str, Any]
    """`run.json`: name, space, dataset, seed, command, versions, ...; any of them may be missing."""
    table: pa.Table
    """Every row of `results/`, failed trials included, sorted by trial and epoch; timings of one device type alone."""
    evaluations: pa.Table
    """Every row of `evaluations/`: single networks under another protocol, another split or another gate."""

    @property
    def folder(self) -> Path:
        """Its folder on this machine."""
        return self.files.root

    @property
    def place(self) -> str:
        """What commands call it: the folder, or the URL of a run in a store."""
        return self.files.place

    @property
    def name(self) -> str:
        """The run's name; its folder's where `run.json` has none."""
        return str(self.info.get("name") or self.folder.resolve().name)


def load(folder: Path) -> Run:
    """Read a run folder, or a run in an object store by its URL.

    Raises:
        RunError: it is no run folder, holds no results yet, a file in it cannot be read, or a latency is none.
    """
    files = RunFolder.fetched(folder)
    folder = files.root
    if not folder.is_dir():
        raise RunError(f"`RUN` must be a folder, but {folder} is none")
    info, evaluations = files.info(), results.read(folder / "evaluations")
    for rows in (table := _results(folder / "results"), evaluations):
        if wrong := untimely(rows)[1]:
            raise RunError(f"{TIMED}, but {folder} has {wrong[0]}")
    return Run(files, info, comparable(results.with_verdicts(table, evaluations)), evaluations)


TIMED = "a latency must be above 0 ms"


def untimely(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """The rows without those that have a latency which no clock shows, 0 ms or less; and what these are, in words."""
    keep, wrong = [], []
    for row in table.select(["trial", "epoch", "latency_p50", "latency_p95"]).to_pylist():
        bad = [row[name] for name in ("latency_p50", "latency_p95") if row[name] is not None and not row[name] > 0]
        keep.append(not bad)
        wrong += [f"trial {row['trial']}, epoch {row['epoch']}, with {time:g} ms" for time in bad[:1]]
    return table.filter(pa.array(keep, type=pa.bool_())), wrong


def _results(folder: Path) -> pa.Table:
    table = results.read(folder)
    if not table.num_rows:
        raise RunError(f"a run must have results before it can be analysed, but {folder} has none yet")
    return table
