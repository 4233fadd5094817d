"""A disk that is full or cannot be written for a while: wait, say so, and lose nothing.

What writes is called again until it succeeds; it must leave nothing half-written behind. Other errors are raised at
once: waiting mends no wrong path.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from .errors import StorageError, WorkersError

T = TypeVar("T")

TROUBLES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE})
"""What may pass: no space, no quota, read-only, a device or a file server that fails."""
PATIENCE = 600.0
"""How long to wait, s."""
PAUSE = 1.0
"""Between two attempts, s."""


def patiently(write: Callable[[], T], what: object, *, patience: float = PATIENCE) -> T:
    """The result of `write()`, called until it succeeds.

    Args:
        write: may be called several times.
        what: is written, for the message.
        patience: s after which it is given up.

    Raises:
        StorageError: it could not be written for so long.
        OSError: it cannot be written, and time will not change that.
    """
    start = None
    while True:
        try:
            result = write()
        except OSError as error:
            if error.errno not in TROUBLES:
                raise
            now = time.monotonic()
            if start is None:
                start = now
                _say(f"waiting, at most {patience:.0f} s, until {what} can be written: {error.strerror}")
            if now - start >= patience:
                raise StorageError(
                    f"{what} must be writable, but was not for {patience:g} s: {error.strerror}"
                ) from error
            time.sleep(min(PAUSE, patience))
        else:
            if start is not None:
                _say(f"{what} can be written again, after {time.monotonic() - start:.0f} s")
            return result


def trouble_in(error: BaseException | None) -> StorageError | WorkersError | None:
    """The trouble with storage or workers that led to this error, if one did."""
    while error is not None:
        if isinstance(error, (StorageError, WorkersError)):
            return error
        if isinstance(error, OSError) and error.errno in TROUBLES:
            return StorageError(f"{error.filename or 'the disk'} must be writable, but is not: {error.strerror}")
        error = error.__cause__ or error.__context__
    return None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
