"""The last word on a network: examinations, and which networks get one; on a run made here without a cluster."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from small_run import finished_run

from robustsearch import data, results
from robustsearch.errors import RunError
from robustsearch.evaluation.masking_attacks import Effort
from robustsearch.evaluation.protocols import PROTOCOLS
from robustsearch.examine import examine, load_network
from robustsearch.recipe import LWTA, Attack, Model, Recipe, Training
from robustsearch.runfolder import RunFolder
from robustsearch.search.final import disagreements, distinct

RECIPE = Recipe(
    model=Model(depth=10),
    lwta=LWTA(kl_weight=0.0),
    attack=Attack(epsilon=0.15, step=0.1, steps=2),
    training=Training(epochs=8, batch_size=40),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of one trial with rungs after 4 and 8 epochs, on a tenth of digits."""
    return finished_run(tmp_path_factory.mktemp("runs") / "tiny", {"0000": RECIPE}, rungs=(4,))


@pytest.mark.slow
def test_the_network_of_each_rung_is_kept_and_is_the_one_that_was_measured(run: RunFolder) -> None:
    dataset = data.load("digits", fraction=0.1)
    rows = {row["epoch"]: row for row in results.read(run.results).to_pylist()}
    natural = []
    for epoch in (4, 8):
        network, recipe = load_network(run.network("0000", epoch), dataset)
        assert recipe == RECIPE
        network.set_gate("mean")  # deterministic, so that two evaluations can be equal
        fixed = recipe.replace(**{"lwta.gate": "mean"})
        once = examine(network, fixed, dataset, protocol=PROTOCOLS["quick"], split="validation", checks=False)
        again = examine(network, fixed, dataset, protocol=PROTOCOLS["quick"], split="validation", checks=False)
        assert {**once, "eval_s": 0} == {**again, "eval_s": 0}
        natural.append(once["natural"])
        assert abs(once["natural"] - rows[epoch]["natural"]) < 0.35
    assert natural[0] != natural[1]


@pytest.mark.slow
def test_an_examination_carries_its_verdict_and_checks(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustsearch.examine.EFFORT", Effort(steps=10, long_steps=20, restarts=1, queries=30))
    dataset = data.load("digits", fraction=0.1)
    network, recipe = load_network(run.network("0000", 8), dataset)
    few = dataclasses.replace(
        PROTOCOLS["full"],
        adversaries=tuple(
            dataclasses.replace(each, steps=min(each.steps, 10)) for each in PROTOCOLS["full"].adversaries
        ),
    )
    row = examine(network, recipe, dataset, protocol=few, split="test", images=30)
    assert (row["split"], row["n"]) == ("test", 30)
    assert isinstance(row["masked"], bool)
    checks = json.loads(row["checks"])
    assert len(checks) > 8
    assert all({"name", "value", "threshold", "passed", "reason"} <= check.keys() for check in checks)
    assert row["masked"] == any(check["passed"] is False for check in checks)
    chain = [row[name] for name in ("fgsm", "pgd", "apgd_ce", "apgd_dlr", "pgd100", "transfer", "naive", "square")]
    assert chain == sorted(chain, reverse=True)
    assert row["robust"] == chain[-1]
    assert row["robust_l2"] == row["apgd_l2"] <= row["pgd_l2"] <= row["cw"]


def test_a_missing_or_foreign_network_is_refused_without_running_its_pickle(tmp_path: Path) -> None:
    dataset = data.load("digits", fraction=0.1)
    with pytest.raises(RunError, match="must be readable"):
        load_network(tmp_path / "none.pt", dataset)
    torch.save({"recipe": Path("x"), "state": {}}, tmp_path / "pickle.pt")
    with pytest.raises(RunError, match="must be readable"):
        load_network(tmp_path / "pickle.pt", dataset)


def test_disagreements_are_pairs_in_another_order() -> None:
    def rows(*robust: float) -> list[dict[str, object]]:
        return [{"trial": f"{i}", "epoch": 1, "robust": value} for i, value in enumerate(robust)]

    assert disagreements(rows(0.1, 0.2, 0.3), rows(0.1, 0.2, 0.3)) == (0, 3)
    assert disagreements(rows(0.1, 0.2, 0.3), rows(0.3, 0.2, 0.1)) == (3, 3)
    assert disagreements(rows(0.1, 0.2, 0.3), rows(0.2, 0.1, 0.3)) == (1, 3)
    assert disagreements(rows(0.1, 0.2), rows(0.2, 0.2)) == (0, 1)
    assert disagreements(rows(0.1, 0.2, 0.3), rows(0.1, 0.2)) == (0, 1)


def test_ties_in_latency_leave_the_most_robust() -> None:
    pairs = [(1.00, 0.5), (1.03, 0.6), (1.05, 0.7), (2.0, 0.8), (2.2, 0.9)]
    front = [{"latency_p50": latency, "robust": robust} for latency, robust in pairs]
    assert [row["robust"] for row in distinct(front)] == [0.7, 0.8, 0.9]
    assert distinct([]) == []
