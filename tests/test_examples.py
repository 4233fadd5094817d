"""The arrays behind the figures: they agree with the network that they are of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import finished_run

from robustsearch import data, examples, portray
from robustsearch.examine import load_network
from robustsearch.recipe import LWTA, Mix, Model, Recipe, Training
from robustsearch.runfolder import RunFolder
from robustsearch.trial import sample

CLEAN = Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0)
RECIPES = {
    "plain-s0": Recipe(model=Model(depth=10), mix=CLEAN, training=Training(epochs=6, batch_size=40)),
    "lwta-s0": Recipe(model=Model(depth=10), mix=CLEAN, lwta=LWTA(), training=Training(epochs=1, batch_size=40)),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of a plain network and one with sampled gates."""
    return finished_run(tmp_path_factory.mktemp("runs") / "tiny", RECIPES)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_arrays_are_the_network_s(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portray, "RADII", (0.5, 2.0))
    monkeypatch.setattr(portray, "POINTS", 5)
    assert examples.main([str(run.root), "--trial", "plain-s0", "--trial", "lwta-s0", "--images", "16"]) == 0
    for trial, recipe in RECIPES.items():
        arrays = dict(np.load(run.portrait(trial, recipe.training.epochs)))
        about = json.loads(str(arrays.pop("about")))
        assert (about["trial"], about["epsilon"], about["random"]) == (trial, 0.1, recipe.is_stochastic)
        names = arrays["attacks"].tolist()
        assert names == ["clean", "fgsm", "pgd", *(["naive", "straight"] if recipe.lwta else []), "cw", "pgd_l2"]
        shape = (len(names), 8, 1, 8, 8)
        assert arrays["originals"].shape == arrays["perturbed"].shape == shape
        known = arrays["shown"] >= 0
        moved = np.abs(arrays["perturbed"] - arrays["originals"]).reshape(len(names), 8, -1).max(axis=2)
        assert (moved[0] == 0).all()
        assert (moved[1:-2] <= 0.1 + 1e-6).all()
        for place, (row, there) in enumerate(zip(arrays["shown"], known, strict=True)):
            right = arrays["predicted"][place][row] == arrays["labels"][row]
            assert right[:4][there[:4]].all()
            assert not right[4:][there[4:]].any()
        for norm in ("linf", "l2"):
            assert (arrays[f"distances_{norm}"] >= 0).all()
            assert (arrays[f"accuracy_{norm}_pgd"] <= 1).all()
        assert arrays["slice_probability"].shape[1:] == (5, 5)


@pytest.mark.slow
def test_predictions_are_the_plain_network_s_own(run: RunFolder) -> None:
    arrays = np.load(run.portrait("plain-s0", 6))
    dataset = data.load("digits", fraction=0.1)
    network, _ = load_network(run.network("plain-s0", 6), dataset)
    images, labels = sample(dataset.test, 16, torch.device("cpu"))
    with torch.no_grad():
        predicted = network(images).argmax(1)
    assert arrays["predicted"][0].tolist() == predicted.tolist()
    wrong = (predicted != labels).numpy()
    assert ((arrays["distances_l2"] == 0) == wrong[: len(arrays["distances_l2"])]).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trial", "other"], "must be one of lwta-s0, plain-s0, but got 'other'"),
        (["--trial", "plain-s0", "--images", "0"], "at least 1, but got 0"),
        (["--trial", "plain-s0", "--protocol", "weak"], "but got 'weak'"),
    ],
)
def test_mistakes_end_with_code_2(
    run: RunFolder, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert examples.main([str(run.root), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert examples.main([str(tmp_path), "--trial", "a"]) == 2
    assert "run.json" in capsys.readouterr().err
