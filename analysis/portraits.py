"""The arrays behind the figures of trained networks, as `python -m robustsearch.examples` writes them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustsearch.errors import RunError

from .load import Run

NORMS = {"linf": "l∞", "l2": "l2"}


@dataclass(frozen=True)
class Portrait:
    """One network: `about` and the arrays, as `robustsearch.examples` documents them."""

    trial: str
    about: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    @property
    def name(self) -> str:
        """The row's name where the trial is one of a design's first seed, else the trial's."""
        return re.sub(r"-s\d+$", "", self.trial)

    def curves(self, norm: str) -> dict[str, NDArray[np.float64]]:
        """Attack to accuracy at each radius `[R]`."""
        start = f"accuracy_{norm}_"
        return {name.removeprefix(start): array for name, array in self.arrays.items() if name.startswith(start)}


def chosen(run: Run, asked: Sequence[str] | None) -> list[str]:
    """The trials to draw: those asked for, else of a design its first seed's, of a search its front and baseline.

    Raises:
        RunError: there is no such trial, or none that was measured.
    """
    rows = [row for row in run.table.to_pylist() if row["robust"] is not None]
    known = list(dict.fromkeys(row["trial"] for row in rows))
    if asked:
        if unknown := [trial for trial in asked if trial not in known]:
            raise RunError(f"`--trial` must be one of {', '.join(known)}, but got {unknown[0]!r}")
        return list(asked)
    if all(re.search(r"-s\d+$", trial) for trial in known):
        from .table_numbers import measured

        found = measured(run)
        return [f"{name}-s{found.seeds[0]}" for name in found.rows if f"{name}-s{found.seeds[0]}" in known]
    from .front import front_rows, front_table

    front = [row["trial"] for row in front_rows(front_table(run.table))]
    return [*dict.fromkeys(front), *(["baseline"] if "baseline" in known else [])]


def portraits(run: Run, trials: Sequence[str], protocol: str) -> list[Portrait]:
    """The arrays of each trial's last epoch; those that are not there yet are computed, in a process of their own.

    Raises:
        RunError: they cannot be computed.
    """
    folder = run.files
    epochs = {row["trial"]: row["epoch"] for row in run.table.to_pylist() if row["robust"] is not None}
    paths = {trial: folder.portrait(trial, epochs[trial]) for trial in trials}
    missing = [
        trial for trial, path in paths.items() if not path.exists() or _read(trial, path).about["protocol"] != protocol
    ]
    if missing:
        print(f"Computing what {len(missing)} networks do under protocol {protocol} ...", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "robustsearch.examples", run.place, "--protocol", protocol]
        for trial in missing:
            command += ["--trial", trial]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or ["it was killed"]
            raise RunError(f"what networks do must be computed first, but robustsearch.examples failed: {reason[0]}")
    return [_read(trial, path) for trial, path in paths.items()]


def _read(trial: str, path: Any) -> Portrait:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return Portrait(trial, json.loads(str(arrays.pop("about"))), arrays)


def calibration_error(confidence: NDArray[Any], correct: NDArray[Any], bins: int = 10) -> tuple[float, NDArray[Any]]:
    """Expected calibration error (Guo et al. 2017, 1706.04599, equation 3) over bins of equal width.

    Returns:
        The error, and for each bin its mean confidence, accuracy and count, `[bins, 3]`; NaN where it is empty.
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    table = np.full((bins, 3), np.nan)
    for each in range(bins):
        inside = place == each
        table[each, 2] = inside.sum()
        if inside.any():
            table[each, :2] = confidence[inside].mean(), correct[inside].mean()
    gaps = np.abs(table[:, 0] - table[:, 1]) * table[:, 2] / len(confidence)
    return float(np.nansum(gaps)), table
