"""The file of a run's Optuna study: every entry is appended as a whole or not at all, whoever dies and however full the
disk is.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from ..patience import patiently


class Journal(JournalFileBackend):  # type: ignore[misc]
    """Optuna's journal in a file, whose end is whole."""

    def __init__(self, path: Path) -> None:
        """The journal in this file; the caller may be the only one who writes."""
        self._path = path
        if path.exists():
            cut_torn_line(path)
        super().__init__(str(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries, as soon as the disk can be written.

        Raises:
            StorageError: it could not be for long.
        """
        patiently(lambda: self._append(logs), self._path)

    def _append(self, logs: list[dict[str, Any]]) -> None:
        cut_torn_line(self._path)
        size = self._path.stat().st_size
        try:
            super().append_logs(logs)
        except OSError:
            with suppress(OSError):
                os.truncate(self._path, size)
            raise


def cut_torn_line(path: Path) -> None:
    """Cut off what follows the last whole line of a file."""
    with path.open("rb") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 4096)
            file.seek(start)
            if (found := file.read(end - start).rfind(b"\n")) >= 0:
                end = start + found + 1
                break
            end = start
    if end < size:
        os.truncate(path, end)
