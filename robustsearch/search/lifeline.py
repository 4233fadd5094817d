"""Ray's own processes, without which a local search cannot go on: Ray ends it seconds later, without a word of ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from ..runfolder import RunFolder

PARTS = {"raylet": "raylet, which starts its workers,", "gcs_server": "head, which knows where they are,"}
"""What the kernel calls the processes that Ray needs, and what they are."""


@contextmanager
def lifeline(folder: RunFolder) -> Iterator[None]:
    """While it is open, the end of one of them ends this process at once: exit code 3, with how to go on from `folder`.

    Nothing can be waited for then (Ray's calls do not return), so that it is as if the driver had been killed. Only
    processes that this one has started are watched: a cluster's are not, nor is anything where there is no /proc.
    """
    closing = Event()
    for pid, name in _children().items():
        if name in PARTS:
            Thread(target=_end_with, args=(pid, PARTS[name], folder, closing), daemon=True).start()
    try:
        yield
    finally:
        closing.set()


def _children() -> dict[int, str]:
    """The processes that this one has started: their ids, and what the kernel calls them."""
    found = {}
    for listed in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, listed.read_text().split()):
            with suppress(OSError):  # it has just ended
                found[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
    return found


def _end_with(pid: int, part: str, folder: RunFolder, closing: Event) -> None:
    with suppress(ChildProcessError):  # Ray has asked before
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    if not closing.is_set():
        sys.stdout.flush()
        print(folder.farewell(f"Ray's {part} has ended (killed, or for want of memory)"), file=sys.stderr, flush=True)
        os._exit(3)
