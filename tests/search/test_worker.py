"""The trainable and the scheduler, without a cluster: a trial that ends by its own watch."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robustsearch import patience, results
from robustsearch.data import Dataset
from robustsearch.recipe import Attack, Mix, Model, Recipe, Training
from robustsearch.runfolder import RunFolder
from robustsearch.search.ledger import Entry, Ledger
from robustsearch.search.scheduler import RungScheduler
from robustsearch.search.worker import DEATHS, Worker
from robustsearch.trial import Plan, Trial

RECIPE = Recipe(
    model=Model(depth=10),
    mix=Mix(clean=0, noise=0, fgsm=0, pgd=0, cw=0, fgsm_rs=1),
    attack=Attack(epsilon=0.9, step=0.9, steps=1),  # PGD of this size leaves nothing right, so no epoch is better
    training=Training(epochs=6, batch_size=40, patience=1),
)


def test_a_trial_that_ends_itself_is_stopped_with_its_reason(digits: Dataset, plan: Plan, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_info({})
    changed: list[Entry] = []
    with Ledger(folder) as ledger:
        entry = ledger.ask("0000", "search", RECIPE, 0, 0)
        scheduler = RungScheduler(ledger, eta=2, changed=changed.append)
        config = {"trial": "0000", "recipe": RECIPE.to_json(), "seed": 0}
        worker = Worker.__new__(Worker)
        worker.setup(config, place=str(folder.root), dataset=digits, plan=plan, threads=1)
        decisions = []
        while not decisions or decisions[-1] == RungScheduler.CONTINUE:
            decisions.append(scheduler.on_trial_result(None, SimpleNamespace(config=config), worker.step()))
        worker.cleanup()
        assert len(decisions) < 6
        assert entry.state == "stopped"
        assert entry.reason is not None
        assert entry.reason.startswith("no better PGD accuracy than")
        again = Worker.__new__(Worker)  # the driver died before it heard: the same result, nothing trained
        again.setup(config, place=str(folder.root), dataset=digits, plan=plan, threads=1)
        result = again.step()
        again.cleanup()
        assert (result["ended"], result["reason"]) == ("stopped", entry.reason)
    rows = results.read(folder.results).to_pylist()
    assert {row["state"] for row in rows} == {"stopped"}
    assert {row["reason"] for row in rows} == {entry.reason}
    scalars = EventAccumulator(str(folder.trials / "0000")).Reload().Scalars("train/pgd_accuracy")
    assert [scalar.step for scalar in scalars][: len(decisions)] == list(range(1, len(decisions) + 1))


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO])
def test_a_file_server_that_fails_as_a_trial_is_taken_up_is_waited_for(
    code: int, digits: Dataset, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must neither crash the trial nor start it from its first epoch."""
    monkeypatch.setattr(patience, "PAUSE", 0.01)
    RunFolder(tmp_path).write_info({})
    recipe = Recipe(
        model=RECIPE.model, mix=Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0), training=Training(epochs=6, batch_size=40)
    )
    config = {"trial": "0000", "recipe": recipe.to_json(), "seed": 0}
    failures = iter([OSError(code, "gone for a while")] * 2)

    class Failing(ZipFile):
        """Every file is opened by it first."""

        def testzip(self) -> str | None:
            if (failure := next(failures, None)) is not None:
                raise failure
            return super().testzip()

    for epoch in (1, 2):
        worker = Worker.__new__(Worker)
        worker.setup(config, place=str(tmp_path), dataset=digits, plan=plan, threads=1)
        result = worker.step()
        worker.cleanup()
        assert (result["epoch"], result["ended"]) == (epoch, None)
        monkeypatch.setattr("zipfile.ZipFile", Failing)
    assert next(failures, None) is None


def test_a_node_that_does_not_share_the_run_s_folder_says_so(digits: Dataset, plan: Plan, tmp_path: Path) -> None:
    worker = Worker.__new__(Worker)
    config = {"trial": "0000", "recipe": RECIPE.to_json(), "seed": 0}
    worker.setup(config, place=str(tmp_path), dataset=digits, plan=plan, threads=1, driver=1)
    result = worker.step()
    worker.cleanup()
    assert result["ended"] == "crashed"
    assert "a run is a folder with a run.json" in result["reason"]
    assert list(tmp_path.iterdir()) == []


def test_a_trial_whose_workers_die_in_one_epoch_has_crashed_and_other_losses_do_not_count(
    digits: Dataset, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunFolder(tmp_path).write_info({})
    recipe = Recipe(
        model=RECIPE.model, mix=RECIPE.mix, attack=RECIPE.attack, training=Training(epochs=6, batch_size=40)
    )
    config = {"trial": "0000", "recipe": recipe.to_json(), "seed": 0}

    def begin(driver: int) -> Worker:
        worker = Worker.__new__(Worker)
        worker.setup(config, place=str(tmp_path), dataset=digits, plan=plan, threads=1, driver=driver)
        return worker

    class Killed(BaseException):
        """As SIGKILL, nothing catches it."""

    def die(driver: int) -> None:
        worker = begin(driver)
        with monkeypatch.context() as patch:
            patch.setattr(Trial, "advance", kill)
            with pytest.raises(Killed):
                worker.step()
        worker.cleanup()

    def kill(trial: Trial) -> None:
        raise Killed

    def run(driver: int) -> dict[str, Any]:
        worker = begin(driver)
        result = worker.step()
        worker.cleanup()
        return result

    for driver in (1, 1, 1, 2, 2):
        die(driver)
    result = run(2)
    assert (result["epoch"], result["ended"]) == (1, None)
    for _ in range(DEATHS):
        die(2)
    for _ in range(DEATHS + 1):  # Tune started them for this trial, and gave it to others
        begin(2).cleanup()
    result = run(2)
    assert (result["epoch"], result["ended"]) == (2, None)
    for _ in range(DEATHS + 1):
        die(2)
    result = run(2)
    assert (result["epoch"], result["ended"]) == (2, "crashed")
    assert result["reason"] == f"its worker died {DEATHS + 1} times in epoch 3"
    assert run(3)["ended"] is None  # whoever resumes the run may want to know better


def test_a_recipe_that_raises_is_a_result_with_its_reason(digits: Dataset, plan: Plan, tmp_path: Path) -> None:
    worker = Worker.__new__(Worker)
    RunFolder(tmp_path).write_info({})
    config = {"trial": "0000", "recipe": '{"model": {"depth": 11}}', "seed": 0}
    worker.setup(config, place=str(tmp_path), dataset=digits, plan=plan, threads=1)
    result = worker.step()
    worker.cleanup()
    assert (result["rows"], result["epoch"], result["ended"]) == ([], 0, "crashed")
    assert "depth" in result["reason"]
