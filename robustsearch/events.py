"""The append-only log of a search: what was asked, reported, told, stopped and failed, in order.

One JSON object per line: `{"n": 0, "time": "...", "kind": "ask", "trial": "0000", ..., "crc": "1b2c3d4e"}`. The driver
is the only writer; each line is on disk before what it says takes effect. `n` counts the lines, and `crc` is the CRC-32
of the line without it, so that no damage goes unnoticed:

- a last line that is damaged is dropped, since nothing that followed from it is in the log either;
- in another line one flipped bit is found from its CRC, and mended;
- anything else is an error that names the line.

From this log alone a run resumes, and its decisions can be made again (`search.replay`).
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, Literal, Self
from zlib import crc32

from .errors import RunError
from .patience import patiently
from .storage import SEGMENT, Store

Kind = Literal["start", "ask", "report", "stop", "tell", "fail", "end"]
"""start: a driver began; ask: a trial got its recipe; report: a rung was measured; tell: a trial was trained to its
last epoch; stop: the scheduler or its own watch ended it; fail: it crashed or diverged; end: the driver finished."""


@dataclass(frozen=True)
class Event:
    """One line of the log."""

    n: int
    time: str
    kind: Kind
    trial: str | None
    data: dict[str, Any]


def line_of(event: Event) -> bytes:
    """An event as a line, its end included."""
    fields = {"n": event.n, "time": event.time, "kind": event.kind, "trial": event.trial, **event.data}
    body = json.dumps(fields, allow_nan=False).encode()
    return body[:-1] + _seal(body) + b"\n"


def _seal(body: bytes) -> bytes:
    """What ends a line whose object is `body` without it."""
    return b', "crc": "%08x"}' % crc32(body)


def _event(line: bytes, n: int) -> Event | None:
    """What a line without its end says; None where it is damaged, or is not number `n`."""
    body = line[: -len(_seal(b""))] + b"}"
    if line != body[:-1] + _seal(body):
        return None
    try:
        fields = json.loads(body)
        event = Event(fields.pop("n"), fields.pop("time"), fields.pop("kind"), fields.pop("trial"), fields)
    except (ValueError, KeyError, AttributeError):
        return None
    return event if event.n == n else None


def _mended(line: bytes, n: int) -> Event | None:
    """What a line said before one of its bits was flipped; None where more is wrong."""
    for bit in range(8 * len(line)):
        guess = bytearray(line)
        guess[bit // 8] ^= 1 << bit % 8
        if event := _event(bytes(guess), n):
            return event
    return None


def read(path: Path) -> tuple[list[Event], int]:
    """The events of a log, which may be growing, and the length in bytes of its whole lines.

    Raises:
        RunError: a line other than the last is damaged beyond mending.
    """
    events: list[Event] = []
    good = 0
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines[:-1]):
        event = _event(line, number)
        if event is None and number == len(lines) - 2 and not lines[-1]:
            break
        event = event or _mended(line, number)
        if event is None:
            raise RunError(f"every line of the event log must be whole, but line {number + 1} of {path} is not")
        events.append(event)
        good += len(line) + 1
    return events, good


class EventLog:
    """An open log."""

    def __init__(self, path: Path | None, store: Store | None = None) -> None:
        """The log in this file; without one it is kept in memory only, for a simulated search.

        With a store each event is there too before it takes effect.

        Raises:
            RunError: a line other than the last is damaged beyond mending.
        """
        self.events: list[Event] = []
        self._path, self._size, self._store = path, 0, store
        self._file: FileIO | None = None
        if path is not None:
            self.events, self._size = read(path)

    def append(self, kind: Kind, trial: str | None = None, **data: Any) -> Event:
        """Write one event and wait until it is on disk, where the log has a file.

        Raises:
            StorageError: disk or store could not be written for long.
        """
        event = Event(len(self.events), datetime.now(UTC).isoformat(timespec="milliseconds"), kind, trial, data)
        if self._path:
            line = line_of(event)
            patiently(lambda: self._write(line), self._path)
            self._size += len(line)
        if self._store:
            segment = event.n // SEGMENT
            lines = [line_of(each) for each in [*self.events[segment * SEGMENT :], event]]
            self._store.put_events(segment, b"".join(lines))
        self.events.append(event)
        return event

    def _write(self, line: bytes) -> None:
        """One attempt to append a line; what an earlier one left of it, or a driver that died, is cut off first."""
        assert self._path
        file = self._file or self._path.open("ab", buffering=0)
        try:
            if os.fstat(file.fileno()).st_size != self._size:
                file.truncate(self._size)
            left = memoryview(line)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
            self._file = file
        except OSError:
            self._file = None
            with suppress(OSError):
                file.close()
            raise

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
