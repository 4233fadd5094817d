"""The command `evaluate`, and networks under other gates; on a run made here without a cluster."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from small_run import finished_run

from robustsearch import data, evaluate, results
from robustsearch.analysis import load
from robustsearch.examine import load_network
from robustsearch.recipe import LWTA, PNI, Mix, Model, Recipe, Smoothing, Training
from robustsearch.runfolder import RunFolder
from robustsearch.trial import sample

COMMON = {"model": Model(depth=10), "training": Training(epochs=1, batch_size=40)}
RECIPES = {
    "0000": Recipe(**COMMON, lwta=LWTA(kl_weight=0.0)),
    "0001": Recipe(**COMMON),
    "0002": Recipe(
        model=Model(depth=10),
        training=Training(epochs=6, batch_size=40),
        lwta=LWTA(kl_weight=0.0),
        smoothing=Smoothing(sigma=0.25),
        mix=Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0),
        draws=2,
    ),
    "0003": Recipe(**COMMON, pni=PNI()),
}
QUICK = ("--protocol", "quick", "--no-checks", "--images", "30")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run: LWTA, ReLU, LWTA with smoothing (six epochs), PNI; one epoch each."""
    return finished_run(tmp_path_factory.mktemp("runs") / "tiny", RECIPES)


@pytest.fixture
def run(trained: RunFolder) -> RunFolder:
    """The same without any evaluation."""
    for path in trained.evaluations.glob("*"):
        path.unlink()
    return trained


def rows(run: RunFolder) -> dict[str, dict]:
    """Every evaluation by the name of its file."""
    found = {}
    for path in sorted(run.evaluations.glob("*.parquet")):
        (found[path.stem],) = results.pq.read_table(path).to_pylist()
    return found


def test_it_writes_rows_that_the_analysis_finds(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(run.root), "--trial", "0000", "--epoch", "1", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "0000 epoch 1: natural" in out
    assert "masking not checked" in out
    (row,) = results.read(run.evaluations).to_pylist()
    assert (row["trial"], row["epoch"], row["split"], row["protocol"]) == ("0000", 1, "test", "quick")
    assert (row["role"], row["lwta.units"], row["variant"], row["latency_p50"]) == ("search", 2, None, None)


@pytest.mark.slow
def test_one_checkpoint_under_every_gate(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each, with the recipe that it stands for; what is deterministic is what the network says by itself."""
    options = ["--gate", "all", "--gate", "noisy=2", "--gate", "mean", "--draws", "3"]
    assert evaluate.main([str(run.root), "--trial", "0000", *options, *QUICK]) == 0
    found = rows(run)
    names = ["argmax-K1", "mean-K1", "noisy-0.5-K3", "noisy-2.0-K3", "sample-K3"]
    assert list(found) == [f"0000-0001-quick-test-{name}" for name in names]
    assert [row["variant"] for row in found.values()] == names
    out = capsys.readouterr().out
    assert out.count("0000 epoch 1 as WRN-10-1, LWTA-2 ") == 5
    assert out.count(" ms, masking not checked") == 5
    dataset = data.load("digits", fraction=0.1)
    images, labels = sample(dataset.test, 30, torch.device("cpu"))
    for row in found.values():
        recipe = Recipe.from_json(row["recipe"])
        assert recipe.digest == row["digest"] != RECIPES["0000"].digest
        own = {"lwta.gate": "sample", "lwta.gate_noise": None, "draws": 1}
        assert recipe.replace(**own) == RECIPES["0000"]
        assert (row["draws"], row["lwta.gate"]) == (recipe.draws, recipe.lwta.gate)
        assert row["latency_p50"] > 0
        network, _ = load_network(run.network("0000", 1), dataset)
        if recipe.lwta.gate in ("mean", "argmax"):
            network.set_gate(recipe.lwta.gate)
            assert row["natural"] == float((network(images).argmax(1) == labels).double().mean())
            assert row["scoring_draws"] == 1
        else:
            assert row["scoring_draws"] > 1


@pytest.mark.slow
def test_the_trial_s_own_gate_is_no_variant(run: RunFolder) -> None:
    assert evaluate.main([str(run.root), "--trial", "0002", "--gate", "sample", *QUICK]) == 0
    ((name, row),) = rows(run).items()
    assert name == "0002-0006-quick-test"
    assert (row["variant"], row["draws"], row["digest"]) == (None, 2, RECIPES["0002"].digest)


@pytest.mark.slow
def test_draws_alone_need_no_gate(run: RunFolder) -> None:
    assert evaluate.main([str(run.root), "--trial", "0003", "--draws", "4", *QUICK]) == 0
    ((name, row),) = rows(run).items()
    assert name == "0003-0001-quick-test-K4"
    assert (row["draws"], row["variant"]) == (4, "K4")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "onnxruntime"])
def test_an_engine_is_timed(engine: str, run: RunFolder) -> None:
    assert evaluate.main([str(run.root), "--trial", "0000", "--engine", engine, *QUICK]) == 0
    ((_, row),) = rows(run).items()
    assert (row["engine"], row["engine_reason"], row["variant"]) == (engine, None, None)
    assert row["latency_p50"] > 0


def test_a_variant_s_verdict_is_not_the_trial_s(run: RunFolder) -> None:
    row = {"trial": "0000", "epoch": 1, "protocol": "full", "split": "test", "masked": True}
    results.write_evaluation(run.evaluations, row | {"variant": "argmax-K1"})
    assert not any(load.load(run.root).table["masked"].to_pylist())
    results.write_evaluation(run.evaluations, row)
    assert load.load(run.root).table["masked"].to_pylist() == [True, None, None, None]
    assert len(rows(run)) == 2


@pytest.mark.slow
def test_certify(run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "PATIENCE", 0.0)
    options = ["--trial", "0002", "--certify", "60", "--images", "12", "--gate", "mean", "--gate", "sample"]
    assert evaluate.main([str(run.root), *options]) == 0
    found = rows(run)
    assert found.keys() == {"0002-0006-certify-test", "0002-0006-certify-test-mean-K2"}
    for row in found.values():
        radii = json.loads(row["certified_radii"])
        assert len(radii) == row["n"] == 12
        assert row["certified_radius"] == pytest.approx(sum(radii) / 12, abs=1e-6)
        assert row["certified"] == sum(radius >= 0.5 for radius in radii) / 12
        assert max(radii) <= 0.25 * 1.2337  # 60 of 60 votes: p_lower = 0.001 ** (1 / 60)
        assert (row["certified_n0"], row["certified_n"], row["certified_alpha"]) == (100, 60, 0.001)
        assert row["robust"] is row["masked"] is None
    assert found["0002-0006-certify-test-mean-K2"]["certified_radius"] > 0
    out = capsys.readouterr().out
    assert "100% certified, ~0 s left" in out
    assert re.search(r"0002 epoch 6: certified 0\.0% \(0\.0 to 24\.2, n = 12\) at l_2 0\.5; in sigma = 0\.25: ", out)
    assert "abstained" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--trial", "0009"), "one of 0000, 0001, 0002, 0003, but got '0009'"),
        (("--trial", "0000", "--epoch", "5"), r"a rung of 0000 \(1\), but got 5"),
        (("--epoch", "5"), "that of a `--trial`"),
        (("--protocol", "weak"), "quick, standard, full, report, but got 'weak'"),
        (("--engine", "tensorrt"), "one of auto, eager, .*onnxruntime, .*but got 'tensorrt'"),
        (("--engine", "eager", "--certify"), "takes no `--engine`, but got 'eager'"),
        (("--split", "train"), "test or validation, but got 'train'"),
        (("--images", "0"), "at least 1, but got 0"),
        (("--trial", "0001", "--gate", "mean"), "trial 0001: `--gate` needs .* LWTA .* WRN-10-1, ReLU"),
        (("--trial", "0000", "--gate", "soft"), "sample, mean, argmax, noisy=S or all, but got 'soft'"),
        (("--trial", "0000", "--gate", "mean=2"), "noisy=S or all, but got 'mean=2'"),
        (("--trial", "0000", "--gate", "noisy"), "needs the scale of its noise, noisy=S, but got 'noisy'"),
        (("--trial", "0000", "--gate", "noisy=loud"), "but got 'noisy=loud'"),
        (("--trial", "0000", "--gate", "noisy=-1"), "gate_noise.* but got -1"),
        (("--trial", "0000", "--gate", "noisy=nan"), "gate_noise.* but got nan"),
        (("--trial", "0000", "--draws", "0"), "`--draws` must be at least 1, but got 0"),
        (("--trial", "0000", "--draws", "999"), "draws.* but got 999"),
        (("--trial", "0001", "--draws", "2"), "trial 0001: `--draws` needs a network that is random"),
        (("--trial", "0000", "--gate", "mean", "--draws", "2"), "`--draws` needs a network that is random"),
        (("--trial", "0000", "--certify"), "needs smoothing at inference, but trial 0000 is WRN-10-1, LWTA-2 sample"),
        (("--trial", "0002", "--certify", "0"), "`--certify` must be at least 1, but got 0"),
        (("--trial", "0002", "--certify", "9", "--draws", "2"), "takes no `--draws`, but got 2"),
    ],
)
def test_bad_input_ends_with_code_2(
    run: RunFolder, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert evaluate.main([str(run.root), *arguments]) == 2
    assert re.search(words, capsys.readouterr().err)
    assert rows(run) == {}


def test_a_protocol_and_a_certificate_exclude_each_other(run: RunFolder) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate.main([str(run.root), "--protocol", "full", "--certify"])


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(tmp_path)]) == 2
    assert "run.json" in capsys.readouterr().err
