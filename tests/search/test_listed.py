"""A design run by the machinery of a search: order, names, resume, the command, and what it does not take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from robustsearch import results
from robustsearch.errors import SpaceError, UserError
from robustsearch.evaluation.protocols import PROTOCOLS
from robustsearch.recipe import Mix, Recipe
from robustsearch.replay import main as replay_main
from robustsearch.run import main
from robustsearch.runfolder import RunFolder
from robustsearch.search import spaces
from robustsearch.search.assemble import make_searcher
from robustsearch.search.ledger import Ledger
from robustsearch.search.listed import ListedSearcher
from robustsearch.search.settings import settings_of

ROWS = {
    "plain": Recipe(mix=Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0)),
    "mixed": Recipe(),
    "noisy": Recipe.of({"pni": {}}),
}
NAMES = ["plain-s5", "mixed-s5", "noisy-s5", "plain-s6", "mixed-s6", "noisy-s6"]


def ask_all(searcher: ListedSearcher, ledger: Ledger, most: int = 99) -> list[dict[str, Any]]:
    configs = []
    while len(configs) < most and (config := searcher.suggest(f"ray{len(configs)}")) != Searcher.FINISHED:
        assert isinstance(config, dict)
        configs.append(config)
        ledger.finish(config["trial"], "completed", epoch=12)
        searcher.on_trial_complete(f"ray{len(configs) - 1}", {})
    return configs


def test_every_row_with_every_seed_whole_seeds_first() -> None:
    ledger = Ledger(None)
    configs = ask_all(ListedSearcher(ROWS, ledger, seeds=2, seed=5), ledger)
    assert [config["trial"] for config in configs] == NAMES
    assert [config["seed"] for config in configs] == [5, 5, 5, 6, 6, 6]
    assert [Recipe.from_json(config["recipe"]) for config in configs] == [*ROWS.values()] * 2
    assert [entry.role for entry in ledger.entries.values()] == ["search"] * 3 + ["repeat"] * 3


def test_a_new_driver_goes_on_where_the_log_ends(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_info({})
    with Ledger(folder) as ledger:
        first = ListedSearcher(ROWS, ledger, seeds=2, seed=5)
        ask_all(first, ledger, most=2)
        first.suggest("running")
    with Ledger(folder) as ledger:
        assert list(ledger.running) == ["noisy-s5"]
        second = ListedSearcher(ROWS, ledger, seeds=2, seed=5)
        assert second.left == 3
        assert [config["trial"] for config in ask_all(second, ledger)] == NAMES[2:]
        assert list(ledger.entries) == NAMES


def test_a_trial_that_a_worker_dies_over_is_handed_out_again() -> None:
    ledger = Ledger(None)
    searcher = ListedSearcher(ROWS, ledger, seeds=1, seed=0)
    config = searcher.suggest("ray")
    searcher.on_trial_complete("ray", error=True)
    assert searcher.suggest("again") == config
    assert ledger.entries["plain-s0"].state == "running"


def test_table1_is_the_reports() -> None:
    rows = spaces.find("table1").rows(0.1)
    assert len(rows) == 8
    for name, recipe in rows.items():
        assert (recipe.model.depth, recipe.model.widen_factor, recipe.training.epochs) == (34, 1, 30)
        assert (recipe.pni is not None) == ("noise-injection" in name)
        assert (recipe.lwta is not None) == (name == "stochastic-lwta")
        if recipe.lwta is None:
            words = {"noise": "smoothing", "pgd": "pgd", "fgsm": "fgsm", "cw": "cw"}
            for attack, word in words.items():
                assert getattr(recipe.mix, attack) == (0.125 if word in name.split("-") else 0)
            assert recipe.attack.epsilon == 0.3
    assert rows["smoothing-pgd-fgsm-cw"].mix == Mix()  # the default is the report's section 3.1
    lwta = rows["stochastic-lwta"]
    assert (lwta.mix.pgd, lwta.training.lr) == (1, 0.1)
    assert (lwta.attack.epsilon, lwta.attack.step, lwta.attack.steps) == (8 / 255, 0.007, 20)
    assert PROTOCOLS["report"].epsilon == 0.3


def test_a_designs_settings_are_its_own_unless_given() -> None:
    own = settings_of({"space": "table1"})
    assert (own.protocol, own.epochs, own.seeds, own.trials, own.scheduler) == ("report", 30, 3, 24, "none")
    assert own.final_images == PROTOCOLS["standard"].images
    given = settings_of({"space": "table1", "epochs": 2, "seeds": 1, "protocol": "quick", "seed": 4})
    assert (given.protocol, given.epochs, given.trials) == ("quick", 2, 8)
    searcher = make_searcher(given, ledger := Ledger(None), None, 0.1)
    assert isinstance(searcher, ListedSearcher)
    configs = ask_all(searcher, ledger)
    assert {Recipe.from_json(config["recipe"]).training.epochs for config in configs} == {2}
    assert configs[3]["trial"] == "smoothing-pgd-s4"
    assert settings_of({"space": "mix"}).seeds is None


@pytest.mark.parametrize(
    ("option", "value"),
    [("--sampler", "tpe"), ("--trials", "12"), ("--warm-start", "runs/x"), ("--repeats", "1"), ("--scheduler", "none")],
)
def test_options_of_a_search_are_errors_for_a_design(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--space", "table1", option, value]) == 2
    assert f"table1 is a design, which takes no `{option}`" in capsys.readouterr().err


def test_seeds_are_an_error_for_a_search() -> None:
    with pytest.raises(UserError, match="lwta is a search space, which takes no `--seeds`"):
        settings_of({"space": "lwta", "seeds": 3})
    with pytest.raises(UserError, match="`seeds` must be at least 1, but got 0"):
        settings_of({"space": "table1", "seeds": 0}).check()


RECIPE = "from robustsearch.recipe import *\n"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("def design(epsilon): return 1 / 0", "`design` of space 'own' must yield recipes, but it raised ZeroDivision"),
        ("def design(epsilon): return {}", "at least one row"),
        (
            "def design(epsilon): return {'a': Recipe(), 'b': Recipe(training=Training(epochs=3))}",
            r"the same epochs, but have \[3, 12\]",
        ),
        ("def design(epsilon): ...\ndef suggest(trial, epsilon): ...", "but .* defines both"),
        ("x = 1", "but .* defines neither"),
    ],
)
def test_what_is_no_design_is_said(tmp_path: Path, text: str, rule: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(RECIPE + text)
    with pytest.raises(SpaceError, match=rule):
        spaces.find(str(path)).sample(0.1, seed=0)


def test_a_design_suggests_nothing() -> None:
    with pytest.raises(SpaceError, match="suggests none"):
        spaces.find("table1").suggest(None, 0.1)


OWN = '''
"""Two small networks."""
from robustsearch.ablation.designs import one_in
from robustsearch.recipe import *


def design(epsilon):
    attack = Attack(epsilon=epsilon, step=epsilon, steps=1)
    base = Recipe(model=Model(depth=10), attack=attack, training=Training(epochs=3))
    return one_in(base, {"noise": {"pni": {}}})
'''


@pytest.mark.slow
@pytest.mark.timeout(800)
def test_a_design_runs_end_to_end_and_replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    small = ["--fraction", "0.2", "--epochs", "1", "--final-images", "20", "--name", "e2e", "--concurrency", "1"]
    command = [sys.executable, "-m", "robustsearch.run", "--space", "own.py", "--seeds", "2", *small]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 trials of 1 epochs, each of 2 rows with 2 seeds; none is stopped" in done.stdout
    folder = RunFolder(tmp_path / "runs" / "e2e")
    rows = results.read(folder.results).to_pylist()
    assert [(row["trial"], row["seed"], row["role"], row["state"], row["epoch"]) for row in rows] == [
        (f"{name}-s{seed}", seed, ("search", "repeat")[seed], "completed", 1)
        for name in ("base", "noise")
        for seed in (0, 1)
    ]
    assert not folder.study_file.exists()
    examined = results.read(folder.evaluations).to_pylist()
    assert [(row["trial"], row["protocol"], row["split"], row["n"], row["role"]) for row in examined] == [
        (row["trial"], "standard", "validation", 20, row["role"]) for row in rows
    ]
    files = sorted(folder.evaluations.glob("*.parquet"))
    files[0].unlink()
    times = [path.stat().st_mtime_ns for path in files[1:]]
    resume = [sys.executable, "-m", "robustsearch.run", "--resume", "--name", "e2e"]
    assert subprocess.run(resume, cwd=tmp_path, capture_output=True, timeout=250).returncode == 0
    assert results.read(folder.evaluations).num_rows == 4
    assert [path.stat().st_mtime_ns for path in files[1:]] == times
    monkeypatch.chdir(tmp_path)
    assert replay_main([str(folder.root)]) == 0
    assert "every one made again as logged" in capsys.readouterr().out
    assert replay_main([str(folder.root), "--trials", "3"]) == 2
