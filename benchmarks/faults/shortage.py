"""A disk that is full for a while, and memory that is, under one whole real search; both need root and Linux."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.driven import Driven
from benchmarks.processes import kill_descendants

DISK = 160_000_000
"""Bytes of the disk; a run does not start with less than 100 MB free."""
HELD = 20.0
"""How long it is full, s."""
ROOM = 150_000_000
"""Bytes of memory that are left to the search before somebody else takes more than that."""
KILLED = 2
"""How many the kernel has to kill for that."""
GROUPS = Path("/sys/fs/cgroup/memory")
"""Where the kernel's control groups of memory (version 1) are."""

HOG = """
import sys, time
for file, text in (("/proc/self/oom_score_adj", "-900"), (f"{sys.argv[1]}/cgroup.procs", "0")):
    with open(file, "w") as opened:
        opened.write(text)
taken = []
while True:
    taken.append(b"x" * 10_000_000)
    time.sleep(0.02)
"""
"""Takes more and more, and is not the one that the kernel kills."""


@contextmanager
def short_of_disk(cwd: Path, *, trials: int, epochs: int) -> Iterator[Driven]:
    """A search that has ended, on a disk that was full to the last byte for a while in its middle."""
    runs = cwd / "runs"
    runs.mkdir(parents=True)
    _do("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(runs))
    try:
        search = Driven(cwd, trials=trials, epochs=epochs)
        search.wait("a report", lambda: search.count("report"))
        filling = runs / "filling"
        subprocess.run(["dd", "if=/dev/zero", f"of={filling}", "bs=4096"], stderr=subprocess.DEVNULL)
        start, before = time.time(), len(search.events())
        time.sleep(HELD)
        saved = sum(search.saved(trial) > start for trial in search.running())
        written = len(search.events()) - before
        print(f"full for {HELD:g} s, in which {saved} trials saved an epoch, and {written} events were written")
        filling.unlink()
        relieved, running = time.time(), search.running()
        search.wait("an epoch of each", lambda: all(search.has_gone_on(trial, relieved) for trial in running))
        print(f"every trial had saved another epoch {time.time() - relieved:.1f} s after there was room")
        search.wait("the end", lambda: False)
        search.driver.wait()
        yield search
    finally:
        _do("umount", "--lazy", str(runs))


@contextmanager
def short_of_memory(cwd: Path, *, trials: int, epochs: int) -> Iterator[Driven]:
    """A search that has ended, in whose middle somebody else took memory until the kernel had killed some of it."""
    own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line)
    group = Path(f"{GROUPS}{own.rpartition(':')[2]}") / f"robustsearch-{os.getpid()}"
    group.mkdir()
    try:
        enter = ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh")
        search = Driven(cwd, trials=trials, epochs=epochs, before=enter)
        search.wait("a report", lambda: search.count("report"))
        limit = int((group / "memory.usage_in_bytes").read_text()) + ROOM
        (group / "memory.limit_in_bytes").write_text(str(limit))
        running, start = search.running(), time.time()
        hog = subprocess.Popen([sys.executable, "-c", HOG, str(group)])
        try:
            search.wait("kills by the kernel", lambda: _killed(group) >= KILLED)
        finally:
            hog.kill()
            hog.wait()
        print(f"{limit / 1e6:.0f} MB for all; the kernel killed {_killed(group)} in {time.time() - start:.1f} s")
        search.wait("an epoch of each", lambda: all(search.has_gone_on(trial, start) for trial in running))
        print(f"every trial had saved another epoch {time.time() - start:.1f} s after that")
        search.wait("the end", lambda: False)
        search.driver.wait()
        print(f"killed by the kernel in all: {_killed(group)}")
        yield search
    finally:
        kill_descendants()
        group.rmdir()


def _killed(group: Path) -> int:
    """How many processes of a control group the kernel has killed for want of memory."""
    return int((group / "memory.oom_control").read_text().split()[-1])


def _do(*command: str) -> None:
    subprocess.run(command, check=True)
