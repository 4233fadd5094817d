"""Processes of this machine, as the Linux kernel lists them."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PR_SET_CHILD_SUBREAPER = 36


class Process(NamedTuple):
    """One process."""

    parent: int
    state: str
    """One letter; Z has ended, and nobody has asked how."""
    ticks: int
    """Of CPU time, its own alone."""
    command: str
    """Its command line, or what it calls itself."""

    @property
    def is_trainable(self) -> bool:
        """Whether it is a worker of Ray that has a trial."""
        return self.command.startswith("ray::ResourceTrainable")  # what `tune.with_resources` makes of a class


def family(root: int) -> dict[int, Process]:
    """A process and all that descend from it, by id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has just ended
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(entry.name)] = Process(int(fields[1]), fields[0], sum(map(int, fields[11:13])), command)
    inside = {root}
    while more := {pid for pid, process in found.items() if process.parent in inside} - inside:
        inside |= more
    return {pid: found[pid] for pid in inside & found.keys()}


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent ends, so that `family` has them all."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "orphans cannot be adopted")


def bury(*others: int) -> None:
    """Ask every adopted child that has ended how it did, so that it is gone; not these `others`."""
    for pid, process in family(os.getpid()).items():
        if process.parent == os.getpid() and process.state == "Z" and pid not in others:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def kill_descendants() -> None:
    """End whatever has come from this process, and bury it."""
    while rest := [pid for pid in family(os.getpid()) if pid != os.getpid()]:
        for pid in rest:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        bury()
