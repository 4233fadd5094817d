"""Dry runs: times by hand, spreads by numpy, averages by simulation; and that nothing is started."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robustsearch import data, results
from robustsearch.ablation.power import detectable, power, seeds_needed
from robustsearch.evaluation.protocols import PROTOCOLS
from robustsearch.recipe import Attack, Mix, Model, Recipe, Training
from robustsearch.run import main
from robustsearch.runfolder import RunFolder
from robustsearch.search.forecast import Cost, calibrate, expected_shares, key, makespan, measured_costs, seed_spread
from robustsearch.trial import Plan

SPACE = '''
"""Two learning rates."""
from robustsearch.recipe import *


def design(epsilon):
    return {f"lr-{lr}": Recipe(model=Model(depth=10), training=Training(lr=lr, epochs=4)) for lr in (0.1, 0.2, 0.3)}
'''
RECIPES = {lr: Recipe(model=Model(depth=10), training=Training(lr=lr, epochs=4)) for lr in (0.1, 0.2, 0.3)}
ROBUST = {0.1: (0.50, 0.54), 0.2: (0.60, 0.60), 0.3: (0.40, 0.46)}


def earlier_rows() -> list[dict]:
    """Three recipes with two seeds, two rungs: an epoch takes 10 s, an evaluation 4 s and a timing 1 s."""
    return [
        {"trial": f"lr-{lr}-s{seed}", "epoch": epoch, "robust": ROBUST[lr][seed], "seed": seed, "n": 200}
        | {"recipe": recipe.to_json(), "digest": recipe.digest, "state": "completed"}
        | {"train_s": 10.0 * epoch, "eval_s": 2.0 * epoch, "latency_s": 0.5 * epoch}
        for lr, recipe in RECIPES.items()
        for seed in (0, 1)
        for epoch in (2, 4)
    ]


@pytest.fixture
def earlier(tmp_path: Path) -> RunFolder:
    """The run folder of these, whose last evaluations took 6 s."""
    folder = RunFolder(tmp_path / "earlier")
    folder.write_info({"settings": {}})
    for trial in {row["trial"] for row in earlier_rows()}:
        rows = [row for row in earlier_rows() if row["trial"] == trial]
        results.write_trial(folder.results, trial, rows)
        final = rows[-1] | {"protocol": "standard", "split": "validation", "eval_s": 6.0, "seed": 0}
        results.write_evaluation(folder.evaluations, final)
    return folder


def test_makespan_by_hand() -> None:
    assert makespan([3, 1, 1, 2], 2) == 4  # 3 and 1; 1 beside it until 2; 2 until 4
    assert makespan([3, 1, 1, 2], 1) == 7
    assert makespan([], 4) == 0


def test_average_epochs_are_those_of_trials_that_are_stopped_at_random() -> None:
    rng = np.random.default_rng(0)
    rungs, eta = (4, 8, 16), 2
    trained, counts = [], []
    for _ in range(20_000):
        reached = 1
        while reached < len(rungs) and rng.random() < 1 / eta:
            reached += 1
        trained.append(rungs[reached - 1])
        counts.append(reached)
    epochs, measured = expected_shares(rungs, eta)
    assert epochs == pytest.approx(np.mean(trained), rel=0.02)
    assert measured == pytest.approx(np.mean(counts), rel=0.02)
    assert expected_shares(rungs, None) == (16, 3)


def test_spread_between_seeds_is_pooled() -> None:
    found = seed_spread(earlier_rows())
    assert found is not None
    expected = np.mean([np.var(pair, ddof=1) for pair in ROBUST.values()]) ** 0.5
    assert found == (pytest.approx(expected), 3)
    assert seed_spread([row for row in earlier_rows() if row["seed"] == 0]) is None


def test_times_of_an_earlier_run_are_per_epoch_and_rung() -> None:
    finals = [{"trial": "lr-0.1-s0", "eval_s": 6.0, "checks_s": None}]
    found = measured_costs(earlier_rows(), finals)
    assert found[key(RECIPES[0.1].replace(**{"training.epochs": 9}))] == Cost(10.0, 5.0, 3.0)  # one of two was examined
    assert found[key(RECIPES[0.2])] == Cost(10.0, 5.0, 0.0)


def test_what_seeds_find_is_what_needs_so_many() -> None:
    given = {"images": 5000, "comparisons": 3}
    found = detectable(0.02, 4, **given)
    assert power(found, 0.02, 4, images=5000, level=0.05 / 3) == pytest.approx(0.8, abs=1e-3)
    assert seeds_needed(found + 1e-6, 0.02, **given) == 4
    assert power(0.9, 0.001, 3) == 1  # where scipy's noncentral t gives up


def test_a_calibration_adds_the_parts_of_a_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustsearch.search.forecast.IMAGES", 8)
    dataset = data.load("digits", fraction=0.1)
    base = Recipe(
        model=Model(depth=10), attack=Attack(epsilon=0.1, step=0.05, steps=2), training=Training(batch_size=40)
    )
    mixes = [Mix(clean=share, noise=0, fgsm=0, pgd=1 - share, cw=0) for share in (1.0, 0.0, 0.25)]
    recipes = [base.replace(mix=mix.model_dump()) for mix in mixes]
    plan = Plan((4,), PROTOCOLS["quick"], dataset.epsilon, dataset.epsilon_l2)
    clean, attacked, mixed = calibrate(recipes, dataset, plan, None)
    assert mixed.epoch == pytest.approx(0.25 * clean.epoch + 0.75 * attacked.epoch)
    assert clean.epoch > 0
    assert clean.rung == attacked.rung > 0
    assert clean.final == 0


def test_a_dry_run_says_what_it_takes_and_starts_nothing(
    earlier: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    (tmp_path / "own.py").write_text(SPACE)
    options = ["--like", str(earlier.root), "--resolution", "20", "--price", "36", "--epochs", "8", "--seeds", "2"]
    assert main(["--space", "own.py", "--dry-run", *options]) == 0
    out = capsys.readouterr().out
    assert "6 trials of 8 epochs: 3 rows with 2 seeds." in out
    # 8 epochs of 10 s and one rung of 5 s; three rounds of two, then three rounds of 6 s.
    assert "A trial takes 0:01:25 on average, the longest 0:01:25 (no recipe timed here, 3 from earlier)." in out
    assert "All take 0:04:33, 0:00:18 of it for the last evaluation." in out
    assert "At 36 an hour that is 2.73." in out
    needed = seeds_needed(
        0.2, 2**0.5 * seed_spread(earlier_rows())[0], images=200, accuracy=np.mean([*ROBUST.values()]), comparisons=2
    )
    assert f"For 20 points it takes {needed} seeds, {3 * needed} trials" in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dry-run", "--resolution", "5"], "needs the variance of trials already run: add --like RUN"),
        (["--dry-run", "--price", "0"], "`--price` must be above 0, but got 0"),
        (["--price", "3"], "`--price` is a question to `--dry-run`"),
        (["--dry-run", "--like", "nowhere"], "has none"),
    ],
)
def test_mistakes_are_said(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(SPACE)
    assert main(["--space", "own.py", *options]) == 2
    assert words in capsys.readouterr().err
