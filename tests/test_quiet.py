"""Time alone on the device, with real processes."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path

from robustsearch.quiet import Quiet

SPAWN = multiprocessing.get_context("spawn")


def work(folder: Path, ready: Event, enough: Event, log: Path) -> None:
    """Take short turns back to back, writing down when each began and ended."""
    quiet = Quiet("test", folder)
    with log.open("a") as file:
        while not enough.is_set():
            with quiet.working():
                start = time.monotonic()
                time.sleep(0.005)
                file.write(f"{start} {time.monotonic()}\n")
                ready.set()


def test_nobody_works_while_one_is_alone_and_nobody_starves(tmp_path: Path) -> None:
    enough = SPAWN.Event()
    ready = [SPAWN.Event() for _ in range(2)]
    workers = [
        SPAWN.Process(target=work, args=(tmp_path, ready[i], enough, tmp_path / f"log{i}"), daemon=True)
        for i in range(2)
    ]
    for worker in workers:
        worker.start()
    assert all(event.wait(30) for event in ready)
    quiet, alone = Quiet("test", tmp_path), []
    for _ in range(5):
        with quiet.alone():
            start = time.monotonic()
            time.sleep(0.05)
            alone.append((start, time.monotonic()))
        time.sleep(0.02)
    enough.set()
    for worker in workers:
        worker.join(30)
    quiet.close()
    for index in range(2):
        turns = [tuple(map(float, line.split())) for line in (tmp_path / f"log{index}").read_text().splitlines()]
        assert len(turns) > 5
        assert not [(a, t) for a in alone for t in turns if t[0] < a[1] and a[0] < t[1]]


def test_a_killed_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    ready, enough = SPAWN.Event(), SPAWN.Event()
    worker = SPAWN.Process(target=work, args=(tmp_path, ready, enough, tmp_path / "log"), daemon=True)
    worker.start()
    assert ready.wait(30)
    worker.kill()
    worker.join(30)
    quiet = Quiet("test", tmp_path)
    with quiet.alone():
        pass
    quiet.close()
