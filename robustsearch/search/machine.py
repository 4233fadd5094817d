"""What this machine must have before a search starts a Ray of its own on it: memory, and room for temporary files."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ..errors import UserError

TEMPORARY = 50e6
"""Bytes that must be free for Ray's own files, logs and sockets among them."""
RAY, TRIAL = 0.3e9, 0.5e9
"""Bytes of memory that Ray's own processes take, and each trial at a time, at least: a search of two small networks at
a time took 1.9 GB with its driver, and with 1.6 GB workers were killed again and again."""
CGROUPS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""Files of a limit on memory and of what is used of it, of either version of control groups."""


def check_machine() -> None:
    """Whether Ray and a trial can be started here.

    Raises:
        UserError: there is no room.
    """
    _check_temporary(Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"))
    _check_memory("a search needs", RAY + TRIAL, "end")


def trials_in_memory() -> int:
    """How many of the smallest trials fit into what is left, at least 1."""
    return max(1, int(min(free_memory() // TRIAL, 2**31)))


def check_memory(trials: int) -> None:
    """Whether so many trials can run here at a time, beside a Ray that runs.

    Raises:
        UserError: there is less memory than the smallest of them take.
    """
    _check_memory(f"{trials} trials at a time need", trials * TRIAL, "lower --concurrency, end")


def _check_memory(what: str, needed: float, remedy: str) -> None:
    if (free := free_memory()) < needed:
        raise UserError(
            f"{what} at least {needed / 1e9:g} GB of memory, but {free / 1e9:.2f} GB are left: {remedy} what else runs "
            "here, or take a machine or a container with more"
        )


def _check_temporary(folder: Path) -> None:
    other = "name another folder by TMPDIR"
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(
            f"the folder for temporary files must be writable, but {folder} is not ({error.strerror}): {other}"
        ) from error
    if free < TEMPORARY:
        raise UserError(
            f"a search needs at least {TEMPORARY / 1e6:g} MB for temporary files, but {folder} has {free / 1e6:.1f} MB "
            f"left: make room or {other}"
        )


def free_memory() -> float:
    """Bytes that processes may still take, of the machine's and of what a container is allowed; infinite if unknown."""
    left = [1024.0 * int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemAvailable:")]
    for line in _lines("/proc/self/cgroup"):
        _, kinds, group = line.split(":", 2)
        for root in (Path("/sys/fs/cgroup"), *(Path("/sys/fs/cgroup", kind) for kind in kinds.split(",") if kind)):
            for folder in {root, root / group.lstrip("/")}:  # a container may see its own group as the root
                left += _left_of(folder)
    return min(left, default=float("inf"))


def _left_of(folder: Path) -> list[float]:
    """What a control group may still take; empty where it has no limit."""
    found = []
    for limit, used in CGROUPS:
        numbers = [next(iter(_lines(folder / name)), "max") for name in (limit, used)]
        if all(number.isdigit() for number in numbers):
            stat = dict(line.split() for line in _lines(folder / "memory.stat"))
            cached = stat.get("total_inactive_file") or stat.get("inactive_file") or 0  # given back where it is needed
            found.append(float(numbers[0]) - float(numbers[1]) + float(cached))
    return found


def _lines(file: str | Path) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []
