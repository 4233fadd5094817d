"""A driver that dies at any of its writes, and those after it: nothing is lost, doubled or decided otherwise."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import optuna
import pytest

from robustsearch.runfolder import RunFolder

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are no part of the package
from benchmarks.faults.points import SPACE, WHEN, Death, When, drive, faults, settings


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("robustsearch.search.spaces.PROBES", 3)  # samples of a space, to choose the sampler by
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (tmp_path / "two.py").write_text(SPACE)
    return tmp_path / "two.py"


def run(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.write_info({})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("when", WHEN[:2])  # after a write is before the next
@pytest.mark.timeout(300)
def test_death_at_every_write(space: Path, tmp_path: Path, when: When) -> None:
    chosen = settings(space, trials=3)
    whole = Death()
    assert drive(run(tmp_path / "whole"), chosen, whole)
    assert faults(run(tmp_path / "whole"), chosen) == []
    assert whole.count > 30
    for at in range(whole.count):
        folder = run(tmp_path / f"{at}")
        assert not drive(folder, chosen, Death(at, when))
        assert drive(folder, chosen, Death())
        assert faults(folder, chosen) == [], f"{when} write {at}"


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
@pytest.mark.timeout(300)
def test_driver_after_driver_dies(space: Path, tmp_path: Path, sampler: str) -> None:
    chosen, chance = settings(space, trials=8, sampler=sampler, repeats=1), Random(0)
    for number in range(1):
        folder, drivers = run(tmp_path / f"{number}"), 1
        while not drive(folder, chosen, Death(chance.randrange(30), chance.choice(WHEN))):
            drivers += 1
        assert drivers > 3
        assert faults(folder, chosen) == []
