"""SIGKILL at random times over one real search: its workers, its driver, Ray's raylet and head."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from benchmarks.faults.points import faults
from robustsearch.events import read
from robustsearch.runfolder import RunFolder
from robustsearch.search.settings import Settings

TINY = '''"""A small network, trained on clean images."""
from robustsearch.recipe import Attack, Mix, Model, Recipe, Training


def suggest(trial, epsilon):
    return Recipe(
        model=Model(depth=10),
        mix=Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0),
        attack=Attack(epsilon=epsilon, step=epsilon, steps=1),
        training=Training(lr=trial.suggest_float("lr", 0.02, 0.2, log=True)),
    )
'''
TITLES = {"worker": "Trainable.", "raylet": "raylet/raylet", "head": "gcs_server"}
SHARES = {"worker": 0.8, "driver": 0.14, "raylet": 0.03, "head": 0.03}
"""Who is killed, how often."""


def descendants(root: int) -> dict[int, str]:
    """Command lines of all processes below one, by id."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                commands[int(entry.name)] = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
            except (OSError, IndexError):
                continue
    below, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in below} - below
        below, grown = below | more, bool(more)
    return {pid: commands[pid] for pid in below - {root} if pid in commands}


class Campaign:
    """One search, killed again and again."""

    def __init__(self, cwd: Path, trials: int, epochs: int, seed: int) -> None:
        (cwd / "tiny.py").write_text(TINY)
        self._cwd, self._chance = cwd, Random(seed)
        self.folder = RunFolder(cwd / "runs" / "killed")
        self._name = ["--name", "killed"]
        self._first = [
            *self._name,
            *("--space", "tiny.py", "--fraction", "0.2", "--trials", str(trials), "--epochs", str(epochs)),
            *("--grace", "2", "--final-images", "0", "--repeats", "0", "--concurrency", "2"),
        ]
        self.kills: Counter[str] = Counter()
        self.recovered: dict[str, list[float]] = {kind: [] for kind in SHARES}

    def start(self) -> None:
        """A driver, the first or the next."""
        there = self.folder.info_file.exists()
        with (self._cwd / "stderr.log").open("ab") as log:
            self._driver = subprocess.Popen(
                [sys.executable, "-m", "robustsearch.run", *(["--resume", *self._name] if there else self._first)],
                cwd=self._cwd,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def run(self, kills: int, seconds: float) -> None:
        """Kill until there were so many, the time is over, or the search has ended; then let it end."""
        end = time.monotonic() + seconds
        self.start()
        while not self._ended():
            if self._driver.poll() is not None:
                self.start()
            elif sum(self.kills.values()) < kills and time.monotonic() < end:
                time.sleep(self._chance.uniform(0.3, 3.0))
                self._kill(self._chance.choices(list(SHARES), list(SHARES.values()))[0])
            else:
                time.sleep(0.5)
        self._driver.wait()

    def _kill(self, kind: str) -> None:
        """Kill one, and wait until the search has gone on."""
        start, before = time.monotonic(), self._events()
        if kind == "driver":
            os.killpg(self._driver.pid, signal.SIGKILL)
        else:
            found = [pid for pid, line in descendants(self._driver.pid).items() if TITLES[kind] in line]
            if not found:
                return
            os.kill(self._chance.choice(found), signal.SIGKILL)
        self.kills[kind] += 1
        if kind != "worker":  # Ray's own processes take the driver with them, at once or after a while
            try:
                self._driver.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self._driver.pid, signal.SIGKILL)
                self._driver.wait()
            if self._ended():
                return
            self.start()
        while self._events() == before and self._driver.poll() is None:
            time.sleep(0.1)
        self.recovered[kind].append(time.monotonic() - start)

    def _events(self) -> int:
        return sum(event.kind != "start" for event in read(self.folder.events_file)[0])

    def _ended(self) -> bool:
        return any(event.kind == "end" for event in read(self.folder.events_file)[0])


def main(kills: int, minutes: float, trials: int, epochs: int, seed: int) -> int:
    """Run a campaign and print its table; 1 where anything is lost or doubled."""
    with tempfile.TemporaryDirectory(prefix="robustsearch-kills-") as temporary:
        campaign = Campaign(Path(temporary), trials, epochs, seed)
        start = time.monotonic()
        campaign.run(kills, 60 * minutes)
        os.chdir(temporary)  # the space's name is relative
        wrong = faults(campaign.folder, Settings(**campaign.folder.info()["settings"]))
        events = read(campaign.folder.events_file)[0]
        drivers = sum(event.kind == "start" for event in events)
        print(f"{sum(campaign.kills.values())} kills over {drivers} drivers in {time.monotonic() - start:.0f} s")
        print("| killed | times | median s until the search goes on | longest |")
        print("|---|---|---|---|")
        for kind, times in campaign.recovered.items():
            if times:
                row = f"{statistics.median(times):.1f} | {max(times):.1f}"
                print(f"| {kind} | {campaign.kills[kind]} | {row} |")
        print("\n".join(wrong) or f"{trials} trials and the baseline: none lost or doubled, every decision made again")
    return bool(wrong)
