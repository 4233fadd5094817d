"""A gaining path run by the machinery of a search: it waits, chooses, goes on after any cut, and is forecast."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from robustsearch import results
from robustsearch.ablation.gaining import GainingPath
from robustsearch.recipe import PNI, Recipe, Smoothing, Training
from robustsearch.replay import main as replay_main
from robustsearch.run import main
from robustsearch.runfolder import RunFolder
from robustsearch.search.assemble import make_scheduler, make_searcher, plain
from robustsearch.search.gaining import GainingSearcher
from robustsearch.search.ledger import Ledger
from robustsearch.search.replay import replay
from robustsearch.search.settings import Settings, settings_of
from robustsearch.search.simulate import Curve, simulate

EPOCHS = 2
BASE = (
    plain(EPOCHS)
    .replace(pni=PNI().model_dump(), smoothing=Smoothing().model_dump(), draws=2)
    .replace(**{"training.lr": 0.05})
)
"""Four changes from the plain network: noise within, noise on the input, a lower rate, and draws, which need noise."""
SETTINGS = Settings(
    "own", base=BASE.to_json(), design="gaining-path", seeds=2, seed=3, epochs=EPOCHS, scheduler="none", grace=EPOCHS
)


def parts(recipe: Recipe) -> set[str]:
    found = {
        "pni": recipe.pni,
        "smoothing": recipe.smoothing,
        "lr": recipe.training.lr < 0.1,
        "draws": recipe.draws > 1,
    }
    return {name for name, on in found.items() if on}


def curve(recipe: Recipe, seed: int) -> Curve:
    """PNI adds most, but diverges with one seed unless the rate is lower; then smoothing; draws take away."""
    has = parts(recipe)
    if "pni" in has and "lr" not in has and seed == 4:
        return Curve([], [1.0], ("diverged", "because", 1))
    skill = 0.1 + 0.4 * ("pni" in has) + 0.2 * ("smoothing" in has) + 0.1 * ("lr" in has) - 0.05 * ("draws" in has)
    row = {"epoch": EPOCHS, "robust": skill + 0.01 * seed, "latency_p50": 1.0, "n": 200}
    return Curve([row], [1.0 + (seed + len(has)) % 3])


ROWS = [
    *("start", "01-pni", "01-smoothing", "01-training.lr"),
    *("02-pni", "02-training.lr", "02-draws"),
    *("03-pni", "03-draws"),
    "04-draws",
]
"""Smoothing (0.3) before the rate (0.2), as PNI fails; then the rate as PNI still does; then PNI; draws are left."""


def go_on(ledger: Ledger, workers: int) -> GainingSearcher:
    searcher = make_searcher(SETTINGS, ledger, None, 0.1)
    assert isinstance(searcher, GainingSearcher)
    list(simulate(searcher, make_scheduler(SETTINGS, ledger), curve, workers=workers))
    return searcher


def replayed(events: Any) -> Any:
    again = Ledger(None)
    return replay(events, make_searcher(SETTINGS, again, None, 0.1), make_scheduler(SETTINGS, again), again)


@pytest.mark.parametrize("workers", [1, 3, 50])
def test_every_seed_of_what_is_tried_and_nothing_else(workers: int) -> None:
    ledger = Ledger(None)
    searcher = go_on(ledger, workers)
    assert list(ledger.entries) == sorted(
        (f"{row}-s{seed}" for row in ROWS for seed in (3, 4)),
        key=lambda name: (name[:2].replace("st", "01"), name[-1], ROWS.index(name[:-3])),
    )
    assert searcher.left == 0
    assert ledger.entries["start-s3"].recipe == plain(EPOCHS)
    assert ledger.entries["04-draws-s4"].recipe == BASE
    assert Counter(entry.role for entry in ledger.entries.values()) == {"search": 10, "repeat": 10}
    ledger.log.append("end")
    assert replayed(ledger.log.events).equal


def test_a_place_waits_for_all_trials_of_the_one_before() -> None:
    ledger = Ledger(None)
    searcher, scheduler = make_searcher(SETTINGS, ledger, None, 0.1), make_scheduler(SETTINGS, ledger)
    assert searcher.left == 2 * GainingPath(plain(EPOCHS), BASE).most == 2 * 10
    configs = [searcher.suggest(f"ray{number}") for number in range(8)]
    assert searcher.left == 2 * 6
    for config in configs:
        assert searcher.suggest("early") is None
        assert isinstance(config, dict)
        found = curve(Recipe.from_json(config["recipe"]), config["seed"])
        if found.failed:
            ledger.finish(config["trial"], "diverged", "because", 1)
        else:
            ledger.report(config["trial"], dict(found.rows[0]))
            assert searcher.suggest("early") is None
            ledger.finish(config["trial"], "completed", epoch=EPOCHS)
    config = searcher.suggest("next")
    assert isinstance(config, dict)
    assert config["trial"] == "02-pni-s3"
    assert parts(Recipe.from_json(config["recipe"])) == {"pni", "smoothing"}
    assert scheduler is not None


@pytest.mark.slow
def test_cut_after_any_event_it_goes_on_to_the_same_end() -> None:
    whole = Ledger(None)
    go_on(whole, 2)
    events = whole.log.events
    for cut in range(len(events)):
        ledger = Ledger.of(events[:cut])
        searcher = go_on(ledger, 3)
        assert ledger.entries.keys() == whole.entries.keys(), cut
        assert (searcher.left, ledger.running) == (0, {})
        ledger.log.append("end")
        found = replayed(ledger.log.events)
        assert found.equal, (cut, found)


def test_a_log_that_chose_otherwise_is_found_out() -> None:
    ledger = Ledger(None)
    go_on(ledger, 2)
    for event in ledger.log.events:
        if event.kind == "report" and event.trial == "01-smoothing-s4":
            event.data["row"] |= {"robust": 0.0}
    found = replayed(ledger.log.events)
    assert found.logged is not None
    assert str(found.logged["trial"]).startswith("02-")


@pytest.fixture
def earlier(tmp_path: Path) -> RunFolder:
    """A run that has measured every recipe on the way: 10 s an epoch, 5 s a rung; its trial 0003 is to be ablated."""
    folder = RunFolder(tmp_path / "earlier")
    folder.write_info({"settings": {"dataset": "digits", "fraction": 0.5, "epochs": EPOCHS, "protocol": "standard"}})
    for number, recipe in enumerate(GainingPath(plain(EPOCHS), BASE).longest().values()):
        trial = "0003" if recipe == BASE else f"x{number}"
        row = {"trial": trial, "epoch": EPOCHS, "robust": 0.5, "seed": 0, "n": 200, "state": "completed"}
        row |= {"recipe": recipe.to_json(), "digest": recipe.digest}
        results.write_trial(folder.results, trial, [row | {"train_s": 20.0, "eval_s": 4.0, "latency_s": 1.0}])
    return folder


def test_a_dry_run_counts_and_waits_place_by_place(
    earlier: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    options = ["--design", "gaining-path", "--seeds", "3", "--dry-run", "--like", str(earlier.root)]
    assert main(["--ablate", f"{earlier.root}:0003", *options]) == 0
    out = capsys.readouterr().out
    # Draws wait for one of two: with the rate first, places have 3, 2, 2 and 1; else 3, 3, 2 and 1.
    assert "At least 27 and at most 30 trials of 2 epochs: 9 to 10 rows with 3 seeds." in out
    assert "At each place of the path every change that leads on is tried" in out
    # Rounds of 4, 3, 2 and 1 rows, of three seeds each: 12, 9, 6 and 3 trials, two at a time: 6 + 5 + 3 + 2 times 25 s.
    assert "A trial takes 0:00:25 on average, the longest 0:00:25 (no recipe timed here, 10 from earlier)." in out
    assert "All take 0:06:40." in out


def test_settings_have_as_many_trials_as_there_may_be(earlier: RunFolder) -> None:
    found = settings_of({"ablate": f"{earlier.root}:0003", "design": "gaining-path"})
    assert (found.trials, found.seeds, found.scheduler) == (30, 3, "none")


OWN = '''
"""The way to a lower rate and more width."""
from robustsearch.ablation.gaining import GainingPath
from robustsearch.recipe import *


def design(epsilon):
    return GainingPath(Recipe(), Recipe(model=Model(widen_factor=2), training=Training(lr=0.05)))
'''


def test_a_space_may_be_a_gaining_path(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    settings = settings_of({"space": str(tmp_path / "own.py"), "seeds": 1, "epochs": 5})
    assert (settings.trials, settings.epochs) == (4, 5)
    searcher = make_searcher(settings, Ledger(None), None, 0.1)
    asked = [searcher.suggest(f"{number}") for number in range(4)]
    assert [config["trial"] for config in asked[:3]] == ["start-s0", "01-model.widen_factor-s0", "01-training.lr-s0"]
    assert Recipe.from_json(asked[2]["recipe"]) == Recipe(training=Training(lr=0.05, epochs=5))
    assert asked[3] is None


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_gaining_path_of_a_trial_end_to_end(tmp_path: Path) -> None:
    """Two changes of a WRN-34: four trials, of which the last starts from the better of two."""
    base = plain(1).replace(**{"training.lr": 0.02, "smoothing": {}})
    folder = RunFolder(tmp_path / "runs" / "first")
    folder.write_info({"settings": {"dataset": "digits", "fraction": 0.2, "epochs": 1}})
    results.write_trial(
        folder.results, "0001", [{"trial": "0001", "epoch": 1, "robust": 0.5, "recipe": base.to_json()}]
    )
    command = [sys.executable, "-m", "robustsearch.run", "--ablate", "runs/first:0001", "--design", "gaining-path"]
    small = ["--seeds", "1", "--final-images", "12", "--name", "path", "--concurrency", "2"]
    done = subprocess.run([*command, *small], cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 trials of 1 epochs, each of 4 rows with 1 seeds; none is stopped; 2 at a time." in done.stdout
    assert "4/4 done" in done.stdout
    path = RunFolder(tmp_path / "runs" / "path")
    rows = {row["trial"]: row for row in results.read(path.results).to_pylist()}
    (last,) = rows.keys() - {"start-s0", "01-smoothing-s0", "01-training.lr-s0"}
    better = rows["01-training.lr-s0"]["robust"] > rows["01-smoothing-s0"]["robust"]
    assert last == ("02-smoothing-s0" if better else "02-training.lr-s0")
    assert Recipe.from_json(rows[last]["recipe"]) == base
    examined = results.read(path.evaluations).to_pylist()
    assert {(row["trial"], row["protocol"]) for row in examined} == {(trial, "standard") for trial in rows}
    assert replay_main([str(path.root)]) == 0
    table = [sys.executable, "-m", "robustsearch.analysis.table", str(path.root)]
    shown = subprocess.run(table, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    assert f"| {'01-training.lr' if better else '01-smoothing'} |" in shown.stdout.partition("## What was tried")[0]
    assert shown.stdout.count("| taken |") == 2
