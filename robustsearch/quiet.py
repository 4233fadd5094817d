"""Time alone on the device: trials that share a node stand still while one of them is timed.

Work (training, evaluation) takes a shared lock for each short stretch; timing takes it exclusively. A second lock, the
turnstile, keeps a stream of workers from starving the one who wants to be alone. Locks are advisory `flock`s on files
of this node, so a killed process never leaves one behind.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Quiet:
    """The pair of locks of one device of this node, named after it (`cpu`, `cuda-0`); for this user's processes."""

    def __init__(self, device: str, folder: Path | None = None) -> None:
        stem = (folder or Path(tempfile.gettempdir())) / f"robustsearch-{os.getuid()}-{device}"
        self._turnstile = os.open(f"{stem}.turnstile", os.O_RDWR | os.O_CREAT, 0o600)
        self._room = os.open(f"{stem}.room", os.O_RDWR | os.O_CREAT, 0o600)

    @contextmanager
    def working(self) -> Iterator[None]:
        """A stretch of ordinary work; waits while somebody is being timed."""
        fcntl.flock(self._turnstile, fcntl.LOCK_SH)
        fcntl.flock(self._room, fcntl.LOCK_SH)
        fcntl.flock(self._turnstile, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until every other stretch of work has ended, and keeps new ones from starting."""
        fcntl.flock(self._turnstile, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._room, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._room, fcntl.LOCK_UN)
        finally:
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the files back."""
        os.close(self._turnstile)
        os.close(self._room)
