"""Real searches to which real things happen, by the commands of `benchmarks.faults`; and that those notice a loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from robustsearch import checkpoint, data
from robustsearch.evaluation.protocols import PROTOCOLS
from robustsearch.recipe import Mix, Model, Recipe, Training
from robustsearch.runfolder import RunFolder
from robustsearch.search.ledger import Entry
from robustsearch.search.settings import Settings
from robustsearch.trial import Plan, run_trial

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are no part of the package
from benchmarks.faults.verdict import differences


def campaign(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.faults", *arguments, "--trials", "3"]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=800)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_search_that_is_killed_again_and_again(tmp_path: Path) -> None:
    done = campaign("kills", "--kills", "8", "--folder", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    strikes = [json.loads(line) for line in (tmp_path / "run" / "strikes.jsonl").read_text().splitlines()]
    assert {"worker", "driver"} <= {strike["kind"] for strike in strikes}
    assert "none lost or doubled" in done.stdout


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ["disk", "memory"])
def test_a_search_that_is_short_of(what: str) -> None:
    if os.geteuid():
        pytest.skip("small disks and groups with little memory need root")
    if what == "memory" and not os.access("/sys/fs/cgroup/memory", os.W_OK):
        pytest.skip("needs the kernel's control groups of memory, version 1")
    done = campaign(what)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none lost or doubled" in done.stdout


@pytest.mark.slow
def test_a_weight_or_a_number_that_differs_is_found(tmp_path: Path) -> None:
    settings, folder = Settings("lwta", fraction=0.1, epochs=1, engine="eager"), RunFolder(tmp_path / "run")
    folder.write_info({"settings": asdict(settings)})
    digits = data.load("digits", fraction=0.1)
    plan = Plan((1,), PROTOCOLS["quick"], digits.epsilon, digits.epsilon_l2, "eager")
    recipe = Recipe(model=Model(depth=10), mix=Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0), training=Training(epochs=1))
    entry, path = Entry("0000", "search", recipe, 0, 0), folder.checkpoint("0000")
    run_trial(recipe, 0, lambda row: entry.rows.append(dict(row)), dataset=digits, plan=plan, checkpoint=path)
    assert differences(folder, entry) == []
    network = folder.network("0000", 1)
    saved = checkpoint.read(network)
    name, weights = next(iter(saved["state"].items()))
    weights.view(-1)[0] += 1e-6
    checkpoint.write(network, saved)
    entry.rows[0]["robust"] += 0.005
    weight, number = differences(folder, entry)
    assert weight == f"epoch 1: {name}"
    assert number.startswith("epoch 1: robust ")
