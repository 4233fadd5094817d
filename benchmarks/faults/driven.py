"""A real search that is watched from outside: its driver, its trials, and what has been saved of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from robustsearch.events import Event, read
from robustsearch.runfolder import RunFolder

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
ENDS = ("tell", "stop", "fail")
"""Events that end a trial."""
PATIENCE = 600.0
"""How long a search may be silent before it is said to hang, s."""


class Driven:
    """A small search on a fifth of digits, in the run folder `runs/run` below a folder, two trials at a time."""

    def __init__(self, cwd: Path, *, trials: int, epochs: int, before: tuple[str, ...] = ()) -> None:
        """So many trials, beside the baseline; `before` is what comes before the command on its line."""
        cwd.mkdir(parents=True, exist_ok=True)
        (cwd / "tiny.py").write_text(TINY)
        self.folder = RunFolder(cwd / "runs" / "run")
        self.trials = trials
        self._cwd, self._said = cwd, cwd / "stderr.log"
        self._read: tuple[int, list[Event]] = 0, []  # size of the log when it was last read
        self._command = [
            *before,
            *(sys.executable, "-m", "robustsearch.run", "--name", "run", "--resume"),
            *("--space", str(cwd / "tiny.py"), "--fraction", "0.2", "--trials", str(trials), "--epochs", str(epochs)),
            *("--final-images", "0", "--repeats", "0", "--engine", "eager", "--concurrency", "2"),
        ]
        self.start()

    def start(self) -> None:
        """A driver, the first or the next."""
        with self._said.open("ab") as log:
            self.driver = subprocess.Popen(self._command, cwd=self._cwd, stdout=subprocess.DEVNULL, stderr=log)

    @property
    def said(self) -> str:
        """What its drivers have said on stderr."""
        return self._said.read_text(errors="replace")

    def check(self) -> None:
        """That the driver has not ended by itself.

        Raises:
            RuntimeError: it has.
        """
        if self.driver.poll() is not None and not self.ended:
            raise RuntimeError(f"the driver ended by itself, with {self.driver.returncode}: {self.said[-2000:]}")

    def wait(self, what: str, ready: Callable[[], object]) -> None:
        """Wait until it is so, or the search has ended.

        Raises:
            RuntimeError: it takes too long, or the driver ends.
        """
        deadline = time.monotonic() + PATIENCE
        while not (ready() or self.ended):
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what}: not within {PATIENCE:g} s")
            time.sleep(0.1)

    def count(self, *kinds: str) -> int:
        """Events of these kinds so far."""
        return sum(event.kind in kinds for event in self.events())

    def events(self) -> list[Event]:
        """All events so far."""
        path = self.folder.events_file
        size = path.stat().st_size if path.exists() else 0
        if size != self._read[0]:
            self._read = size, read(path)[0]
        return self._read[1]

    @property
    def ended(self) -> bool:
        """Whether the search has come to its end."""
        return self.count("end") > 0

    def running(self) -> list[str]:
        """The trials that have been asked for and have not ended."""
        ended = {event.trial for event in self.events() if event.kind in ENDS}
        return [str(event.trial) for event in self.events() if event.kind == "ask" and event.trial not in ended]

    def began(self, trial: str) -> float:
        """When a process has last begun with a trial, s since 1970; 0 where none has."""
        return _time_of(self.folder.checkpoint(trial).with_name("attempts.json"))

    def saved(self, trial: str) -> float:
        """When an epoch of a trial was last saved, s since 1970; 0 where none was."""
        return _time_of(self.folder.checkpoint(trial))

    def has_gone_on(self, trial: str, since: float) -> bool:
        """Whether a trial has saved an epoch since then, or has ended."""
        return self.saved(trial) > since or trial not in self.running()


def _time_of(path: Path) -> float:
    """When a file was last written, s since 1970; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
