"""TensorBoard: what a real reader and a real server find in the logs of trials and of the search, and their size."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robustsearch.data import Dataset
from robustsearch.models.build import build_network
from robustsearch.models.inspect import describe
from robustsearch.recipe import Model, Recipe
from robustsearch.runfolder import RunFolder
from robustsearch.search.board import (
    EPOCH_BYTES,
    METRICS,
    OTHER,
    RUNG_BYTES,
    START_BYTES,
    Board,
    examples_picture,
)
from robustsearch.search.ledger import Ledger
from robustsearch.search.live import Attained, SearchBoard
from robustsearch.search.worker import Worker
from robustsearch.trial import Plan, Portrait, Trial

RECIPE = Recipe.of(
    {
        "model": {"depth": 10},
        "lwta": {"units": 4, "ibp": {}},
        "pni": {},
        "training": {"epochs": 2, "batch_size": 40},
    }
)
EXAMPLES, ABOUT = "examples/clean_perturbed_difference", "examples/about"


@pytest.fixture(scope="module")
def trained(digits: Dataset, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Portrait]]:
    """The logs of a trial of two epochs with a rung after each, and what its network is then."""
    folder = RunFolder(tmp_path_factory.mktemp("board"))
    folder.write_info({})
    worker = Worker.__new__(Worker)
    config = {"trial": "0000", "recipe": RECIPE.to_json(), "seed": 0}
    worker.setup(config, place=str(folder.root), dataset=digits, plan=plan, threads=1)
    for _ in range(2):
        assert worker.step()["ended"] is None
    worker.cleanup()
    trial = Trial(RECIPE, 0, digits, plan)
    assert trial.load(folder.checkpoint("0000"))
    yield folder.trials, trial.portrait()
    trial.close()


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0}).Reload()


def test_the_log_of_a_trial_holds_its_layers_and_examples(trained: tuple[Path, Portrait]) -> None:
    folder, portrait = trained
    log = read(folder / "0000")
    tags = log.Tags()
    kinds = {name.partition("/")[0] for name in portrait.layers}
    assert kinds == {"gate_usage", "winner_entropy", "block_probability", "pni_alpha"}
    for name, values in portrait.layers.items():
        assert [event.step for event in (log.Histograms if values.ndim else log.Scalars)(name)] == [1, 2]
        if values.ndim:
            shown = log.Histograms(name)[-1].histogram_value
            assert (shown.num, shown.sum) == (values.size, pytest.approx(values.sum(), rel=1e-5))
            counts, _ = np.histogram(values, bins=30, range=(0, 1))
            assert [count for count in shown.bucket if count] == counts[counts > 0].tolist()
        else:
            assert log.Scalars(name)[-1].value == pytest.approx(float(values))
    assert set(tags["histograms"]) == {name for name, values in portrait.layers.items() if values.ndim}
    assert [event.step for event in log.Images(EXAMPLES)] == [1, 2]
    picture = np.array(Image.open(io.BytesIO(log.Images(EXAMPLES)[-1].encoded_image_string)).convert("L"))
    np.testing.assert_array_equal(picture, examples_picture(portrait.clean, portrait.perturbed)[0])
    (words,) = log.Tensors(f"{ABOUT}/text_summary")[-1].tensor_proto.string_val
    names = [[str(image[0]), *map(str, image[1:])] for image in zip(portrait.labels, *portrait.predicted, strict=True)]
    assert json.loads(words) == {"attack": "PGD-3", "epsilon": 0.1, "classes": names}  # digits are named by numbers


def test_examples_are_images_of_the_rung_within_epsilon_of_them(
    trained: tuple[Path, Portrait], digits: Dataset
) -> None:
    portrait = trained[1]
    moved = np.abs(portrait.perturbed - portrait.clean)
    assert portrait.clean.shape == (4, *digits.shape)
    assert 0.9 * digits.epsilon < moved.max() <= digits.epsilon * (1 + 1e-5)
    assert portrait.perturbed.min() >= 0
    assert portrait.perturbed.max() <= 1


def test_examples_come_with_their_class_and_what_they_are_taken_for(digits: Dataset, plan: Plan) -> None:
    plan = replace(plan, rungs=())
    recipe = Recipe.of({"model": {"depth": 10}, "training": {"epochs": 2, "batch_size": 40}})
    trial = Trial(recipe, 0, digits, plan)
    trial.advance()
    portrait = trial.portrait()
    trial.network.eval()  # nothing in it is random
    for images, predicted in zip((portrait.clean, portrait.perturbed), portrait.predicted, strict=True):
        with torch.no_grad():
            assert trial.network(torch.from_numpy(images)).argmax(dim=1).tolist() == predicted.tolist()
    pixels = digits.validation.images.transpose(0, 3, 1, 2) / 255
    for image, label in zip(portrait.clean, portrait.labels, strict=True):
        (place,) = np.flatnonzero(np.abs(pixels - image).max(axis=(1, 2, 3)) < 1e-6)
        assert digits.validation.labels[place] == label
    trial.close()


@pytest.mark.slow
def test_a_portrait_leaves_no_trace_in_the_training(digits: Dataset, plan: Plan) -> None:
    plan = replace(plan, rungs=())
    states = []
    for portrayed in (False, True):
        trial = Trial(RECIPE, 0, digits, plan)
        for _ in range(2):
            trial.advance()
            if portrayed:
                trial.portrait()
        states.append((trial.network.state_dict(), trial.network.noise.state(), trial.network.training))
        trial.close()
    (one, noise, mode), (other, other_noise, other_mode) = states
    assert mode == other_mode
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(torch.equal(noise[name], other_noise[name]) for name in noise)


def test_the_picture_by_hand() -> None:
    clean = np.zeros((2, 1, 1, 2), dtype=np.float32)
    clean[1] = 1.0
    perturbed = clean + np.array([[[[0.2, 0.0]]], [[[-0.1, 0.0]]]], dtype=np.float32)
    assert examples_picture(clean, perturbed).tolist() == [
        [[0, 0, 255, 255], [51, 0, 230, 255], [255, 128, 64, 128]],
    ]
    assert examples_picture(clean, clean)[0, 2].tolist() == [128] * 4
    large = np.zeros((2, 4, 65, 33), dtype=np.float32)
    assert examples_picture(large, large).shape == (1, 3 * 22, 2 * 11)


@pytest.mark.slow
def test_the_log_of_the_largest_recipe_is_within_its_bound(tmp_path: Path) -> None:
    recipe = Recipe(
        model=Model(depth=40),
        lwta=RECIPE.lwta,
        pni=RECIPE.pni,
        training=RECIPE.training.model_copy(update={"awp": 0.005, "patience": 3}),
    )
    network = build_network(recipe, shape=(3, 32, 32), classes=10, mean=(0.5,) * 3, std=(0.2,) * 3, seed=0).eval()
    for layer in network.modules():
        if hasattr(layer, "t"):  # no two blocks alike: a histogram drops empty bins at its ends
            layer.t.data.copy_(torch.linspace(-6, 6, len(layer.t)))
    layers = describe(network, torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    # Full histograms, and pictures that PNG cannot make smaller.
    rng = np.random.default_rng(0)
    layers = {
        name: rng.random(values.shape, dtype=np.float32) if values.ndim else values for name, values in layers.items()
    }
    names = ("robust", "latency_p50", "natural", "fgsm", "pgd", "cw", "latency_p95", "throughput", "blocks_kept")
    row: dict[str, Any] = dict.fromkeys((*names, "macs", "parameters"), 0.123)
    losses = dict.fromkeys(("loss", "cross_entropy", "clean", "gate", "sticks", "z", "trades", "pgd_accuracy"), 0.123)
    board, epochs, rungs = Board(tmp_path, recipe, 0), 20, 3
    for epoch in range(1, epochs + 1):
        board.losses(epoch, losses)
        if epoch <= rungs:
            board.row(row | {"epoch": epoch})
            board.layers(epoch, layers)
            pictures = rng.random((2, 4, 3, 64, 64), dtype=np.float32)
            portrait = Portrait({}, *pictures, "PGD-3", 8 / 255, np.full(4, 1), np.full((2, 4), 1))
            board.examples(portrait, epoch, ["", "a class with a long name"])
    board.close()
    size = sum(path.stat().st_size for path in tmp_path.rglob("*"))
    assert rungs * RUNG_BYTES / 2 < size < START_BYTES + epochs * EPOCH_BYTES + rungs * RUNG_BYTES


@pytest.mark.slow
def test_the_front_is_drawn_when_it_has_changed_and_the_search_has_grown(tmp_path: Path) -> None:
    with Ledger(None) as ledger:
        attained = Attained(ledger, base=1.0)
        board = SearchBoard(tmp_path, attained)
        for index in range(60):
            name = f"{index:04d}"
            entry = ledger.ask(name, "search", Recipe(), index, index)
            best = index % 2  # each second trial moves the front
            robust, latency = (0.3 + 0.005 * index, 1.0 + 0.05 * index) if best else (0.2, 9.0)
            ledger.report(name, {"epoch": 1, "robust": robust, "latency_p50": latency, "n": 100})
            ledger.finish(name, "completed", epoch=1)
            attained.update(entry)
            board.write(index + 1)
        board.close()
        front = attained.front
    log = read(tmp_path)
    steps = [event.step for event in log.Images("search/front")]
    assert len(log.Scalars("search/ended")) == 60
    assert steps[-1] == 60
    assert len(steps) < 30
    assert all(later >= 1.1 * step for step, later in pairwise(steps[:-1]))
    expected = [(1.0 + 0.05 * index, 0.3 + 0.005 * index) for index in range(1, 60, 2)]
    np.testing.assert_allclose(front, expected)
    picture = np.array(Image.open(io.BytesIO(log.Images("search/front")[-1].encoded_image_string)))
    assert picture.shape == (320, 480, 3)
    assert ((picture[..., 2].astype(int) - picture[..., 0]) > 100).sum() > 300  # blue, the front


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def ask_for(url: str, question: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(question).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_a_server_answers_with_these_tags(trained: tuple[Path, Portrait]) -> None:
    folder, portrait = trained
    fast = Board(folder / "0001", Recipe(model=Model(depth=16)), 0)
    fast.row(dict.fromkeys((*METRICS, *OTHER), 0.001) | {"epoch": 1})
    fast.close()
    with Ledger(None) as ledger:
        attained = Attained(ledger, base=1.0)
        search = SearchBoard(folder / "search", attained)
        for index, robust in enumerate((0.3, 0.4)):
            entry = ledger.ask(f"{index}", "search", Recipe(), index, index)
            ledger.report(f"{index}", {"epoch": 1, "robust": robust, "latency_p50": 1.0 + index, "n": 100})
            ledger.finish(f"{index}", "completed", epoch=1)
            attained.update(entry)
            search.write(index + 1)
        search.close()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0", "--load_fast", "false"]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stderr is not None
            lines = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in server.stderr)
            url = next(found.group() for found in lines if found) + "data/plugin"
            deadline = time.monotonic() + 60
            while not {"0000", "search"} <= ask(f"{url}/images/tags").keys() and time.monotonic() < deadline:
                time.sleep(0.1)  # it answers before it has read the logs
            scalars, histograms, images = (
                ask(f"{url}/{plugin}/tags")["0000"] for plugin in ("scalars", "histograms", "images")
            )
            assert {name for name, values in portrait.layers.items() if values.ndim} == set(histograms)
            assert {name for name, values in portrait.layers.items() if not values.ndim} < set(scalars)
            assert {"objective/robust", "objective/latency_p50", "train/loss"} < set(scalars)
            assert set(images) == {EXAMPLES}
            usage = ask(f"{url}/histograms/histograms?run=0000&tag=gate_usage/activation")
            assert [step for _, step, _ in usage] == [1, 2]
            assert set(ask(f"{url}/images/tags")["search"]) == {"search/front"}
            fronts = ask(f"{url}/images/images?run=search&tag=search/front&sample=0")
            assert [front["step"] for front in fronts] == [1, 2]  # over time
            experiment = ask_for(f"{url}/hparams/experiment", {"experimentName": ""})
            columns = {column["name"]["tag"] for column in experiment["metricInfos"]}
            assert {"objective/robust", "objective/latency_p50"} <= columns
            assert {"lwta.units", "model.depth"} <= {column["name"] for column in experiment["hparamInfos"]}
            for objective, order, first in (
                ("objective/latency_p50", "ORDER_ASC", "0001"),
                ("objective/latency_p50", "ORDER_DESC", "0000"),
                ("objective/robust", "ORDER_ASC", "0001"),
            ):
                question = {
                    "experimentName": "",
                    "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
                    "colParams": [{"metric": {"group": "", "tag": objective}, "order": order}],
                    "startIndex": 0,
                    "sliceSize": 10,
                }
                found = ask_for(f"{url}/hparams/session_groups", question)["sessionGroups"]
                assert [group["sessions"][0]["name"] for group in found] == [first, {"0000": "0001"}.get(first, "0000")]
        finally:
            server.terminate()
