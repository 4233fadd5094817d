"""The append-only log of a search: what was asked, reported, told, stopped and failed, in order.

One JSON object per line: `{"n": 0, "time": "...", "kind": "ask", "trial": "0000", ...}`. The driver is the only writer;
each line is on disk before what it says takes effect. A last line that a dying process left half-written is dropped
when the log is opened again. From this log alone a run resumes, and its decisions can be made again
(`search.replay`).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from .errors import RunError

Kind = Literal["start", "ask", "report", "stop", "tell", "fail", "end"]
"""start: a driver began; ask: a trial got its recipe; report: a rung was measured; stop: the scheduler ended a trial;
tell: the sampler learnt a trial's values; fail: a trial crashed or diverged; end: the driver finished."""


@dataclass(frozen=True)
class Event:
    """One line of the log."""

    n: int
    time: str
    kind: Kind
    trial: str | None
    data: dict[str, Any]


def read(path: Path) -> tuple[list[Event], int]:
    """The events of a log, which may be growing, and the length in bytes of its whole lines.

    Raises:
        RunError: a line other than the last is damaged.
    """
    events: list[Event] = []
    good = 0
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines[:-1]):
        try:
            fields = json.loads(line)
            event = Event(fields.pop("n"), fields.pop("time"), fields.pop("kind"), fields.pop("trial"), fields)
        except (ValueError, KeyError) as error:
            if number == len(lines) - 2:
                break
            raise RunError(
                f"every line of the event log must be whole, but line {number + 1} of {path} is not"
            ) from error
        events.append(event)
        good += len(line) + 1
    return events, good


class EventLog:
    """An open log."""

    def __init__(self, path: Path | None) -> None:
        """The log in this file; without one it is kept in memory only, for a simulated search.

        Raises:
            RunError: a line other than the last is damaged.
        """
        self.events: list[Event] = []
        self._file = None
        if path is not None:
            self.events, good = read(path)
            self._file = path.open("ab")
            self._file.truncate(good)

    def append(self, kind: Kind, trial: str | None = None, **data: Any) -> Event:
        """Write one event and wait until it is on disk, where the log has a file."""
        event = Event(len(self.events), datetime.now(UTC).isoformat(timespec="milliseconds"), kind, trial, data)
        if self._file:
            line = {"n": event.n, "time": event.time, "kind": kind, "trial": trial, **data}
            self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self.events.append(event)
        return event

    def of(self, *kinds: Kind) -> list[Event]:
        """The events of these kinds, in order."""
        return [event for event in self.events if event.kind in kinds]

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
