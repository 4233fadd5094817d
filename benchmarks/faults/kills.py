"""SIGKILL at random times over one real search: its workers, its driver, Ray's raylet and head."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random

from benchmarks.faults.driven import ENDS, Driven
from benchmarks.processes import bury, family

PROGRAMS = {"raylet": "raylet/raylet", "head": "gcs_server"}
"""What the command lines of Ray's own processes have in them."""
SHARES = {"worker": 0.8, "driver": 0.14, "raylet": 0.03, "head": 0.03}
"""Who is killed, how often."""
AT_ONCE = 0.9
"""How often all workers there are die together, where one is to die."""
IMPATIENT = 0.5
"""How often the next kill does not wait until the search has recovered, though at most twice in a row: the fourth death
in one epoch is taken for the trial's own fault."""
LINGERING = 120.0
"""How long a driver may go on without the Ray that it started, s."""


@dataclass(frozen=True)
class Strike:
    """What was killed at one time, and what became of the search."""

    kind: str
    processes: int
    at: float
    """Seconds since 1970."""
    recovered: float | None = None
    """Seconds until every trial that was running had saved another epoch, or had ended; None where the next strike came
    before that."""
    lost: dict[str, float] = field(default_factory=dict)
    """Where it has recovered: the trials that went on in another process, and how long the dead one had worked on each
    since its last epoch was saved, s."""
    code: int | None = None
    """Exit code of a driver whose Ray was killed; None where it had to be killed too."""
    lingered: float | None = None
    """How long such a driver went on, s."""


class Campaign:
    """One search, killed again and again. A campaign that is interrupted itself goes on from its folder."""

    def __init__(self, cwd: Path, *, kills: int, trials: int, epochs: int, seed: int) -> None:
        """So many kills of a search of so many trials, whose run folder lies below `cwd`."""
        self.search = Driven(cwd, trials=trials, epochs=epochs)
        self._file = cwd / "strikes.jsonl"
        there = self._file.read_text().splitlines() if self._file.exists() else []
        self.strikes = [Strike(**json.loads(line)) for line in there]
        self._planned = {kind: round(share * kills) for kind, share in SHARES.items()}
        self._chance = Random(f"{seed} {len(there)}")

    @property
    def killed(self) -> Counter[str]:
        """Processes killed so far, by kind."""
        found: Counter[str] = Counter()
        for strike in self.strikes:
            found[strike.kind] += strike.processes
        return found

    def run(self, seconds: float) -> None:
        """Kill until all is killed that is to be, or the time is over, or the search has ended; then let it end.

        Raises:
            RuntimeError: the search hangs, or its driver has ended by itself.
        """
        end = time.monotonic() + seconds
        while not self.search.ended:
            left = [max(0, number - self.killed[kind]) for kind, number in self._planned.items()]
            if any(left) and time.monotonic() < end and self._is_due():
                time.sleep(self._chance.uniform(0.0, 1.5))
                self._strike(self._chance.choices(list(self._planned), left)[0])
            self.search.check()
            bury(self.search.driver.pid)
            time.sleep(0.1)
        self.search.driver.wait()

    def _is_due(self) -> bool:
        """Kills are spread over the search: they are not ahead of the trials that were asked for."""
        asked = self.search.count("ask")
        return self.killed.total() * (self.search.trials + 1) <= asked * sum(self._planned.values())

    def _strike(self, kind: str) -> None:
        """Kill one, or several workers, and mostly wait until the search has gone on."""
        search = self.search
        running, starts = search.running(), search.count("start")
        since = {trial: max(search.saved(trial), search.began(trial)) for trial in running}
        victims, moment = self._victims(kind), time.time()
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not victims:
            return
        strike, alive = Strike(kind, len(victims), moment), moment
        if kind != "worker":
            strike = self._bury_driver(strike)
            search.start()
            search.wait("the next driver", lambda: search.count("start") > starts)
            alive = time.time()  # what the last one's workers saved with their last breath does not count
        waited = [each.recovered is not None for each in self.strikes[-2:]]
        if waited == [False, False] or self._chance.random() >= IMPATIENT:
            search.wait("an epoch of each", lambda: all(search.has_gone_on(trial, alive) for trial in running))
            again = [trial for trial in running if search.began(trial) > moment]
            lost = {trial: round(moment - since[trial], 3) for trial in again if since[trial]}
            strike = replace(strike, recovered=round(time.time() - moment, 3), lost=lost)
        self.strikes.append(strike)
        line = json.dumps(asdict(strike))
        with self._file.open("a") as file:
            file.write(f"{line}\n")
        print(f"{self.killed.total()} killed, {search.count(*ENDS)} trials ended: {line}", flush=True)

    def _victims(self, kind: str) -> list[int]:
        """The processes that are to be killed."""
        if kind == "driver":
            return [self.search.driver.pid]
        below = family(self.search.driver.pid).items()
        if kind != "worker":
            return [pid for pid, process in below if PROGRAMS[kind] in process.command]
        found = [pid for pid, process in below if process.is_trainable]
        self._chance.shuffle(found)
        return found if self._chance.random() < AT_ONCE else found[:1]

    def _bury_driver(self, strike: Strike) -> Strike:
        """Wait for the end of a driver that was killed, or whose Ray was: at once, after a while, or not at all."""
        driver = self.search.driver
        try:
            code = driver.wait(LINGERING)
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
            return strike
        if strike.kind == "driver":
            return strike
        return replace(strike, code=code, lingered=round(time.time() - strike.at, 3))
