"""Engines return what the network does, or give way to one that does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustsearch.engines import ENGINES, kernel
from robustsearch.engines.graph import FORMS
from robustsearch.engines.prepare import prepare
from robustsearch.errors import UserError
from robustsearch.models.build import Network
from robustsearch.models.deploy import Deployed, deploy
from robustsearch.models.ibp import BlockPrior
from robustsearch.models.stochastic import mean_network
from robustsearch.models.wrn import GlobalAverage
from robustsearch.recipe import Recipe

CPU, SHAPE = torch.device("cpu"), (3, 8, 8)
Make = Callable[..., Network]


@pytest.mark.parametrize("draws", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_every_recipe_has_its_own_prediction(recipe: Recipe, draws: int, make: Make, images: Tensor) -> None:
    """For batches of any size; equal where nothing is random, and in its mean network where something is."""
    deployed = deploy(make(recipe), draws)
    prepared = prepare(deployed, SHAPE, CPU)
    assert prepared.engine.startswith("onnxruntime"), prepared.reason
    assert prepared.build_s > 0
    for batch in (images, images[:1], images.repeat(5, 1, 1, 1)):
        probabilities = prepared.predict(batch)
        assert probabilities.shape == (len(batch), 10)
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(len(batch)), rtol=0, atol=1e-5)
        assert torch.equal(probabilities, prepared.predict(batch)) == (not recipe.is_stochastic)
    with mean_network(deployed):
        mean, expected = prepare(deployed, SHAPE, CPU).predict(images), deployed(images)
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-5)
    if not recipe.is_stochastic:
        torch.testing.assert_close(prepared.predict(images), deployed(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("gate", ["mean", "argmax"])
@pytest.mark.parametrize(
    "removed", ["none", "blocks.0.activation1", "blocks.0.activation2", "blocks.1.activation1", "blocks.2", "blocks"]
)
def test_pruned_networks(removed: str, gate: str, engine: str, make: Make, images: Tensor) -> None:
    """Half of all blocks are gone, and all of those whose layer's name begins so."""
    network = make({"lwta": {"gate": gate, "ibp": {}}}).eval()
    for name, prior in network.body.named_modules():
        if isinstance(prior, BlockPrior):
            prior.t.data = torch.linspace(-1, 3, len(prior.t))
            prior.t.data[slice(None) if name.startswith(removed) else slice(None, None, 2)] = -8
    deployed = deploy(network, 1)
    prepared = prepare(deployed, SHAPE, CPU, engine)
    assert (prepared.engine, prepared.reason) == (engine, None)
    torch.testing.assert_close(prepared.predict(images), network.predict(images, 1).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("fields", [{"lwta": {}}, {"lwta": {"units": 4}}, {"pni": {}}, {"smoothing": {}}])
def test_the_seed_decides_the_draws(fields: dict[str, object], make: Make, images: Tensor) -> None:
    deployed = deploy(make(fields), 2)
    first, same, other = (prepare(deployed, SHAPE, CPU, seed=seed).predict for seed in (1, 1, 2))
    runs = [first(images) for _ in range(3)]
    assert all(torch.equal(run, same(images)) for run in runs)
    assert not torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], other(images))


class Other(nn.ReLU):
    """A layer without a form, though its base has one."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


def test_a_layer_without_a_form_is_named_and_runs_in_torch() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), Other(), GlobalAverage(), nn.Linear(8, 5))
    network = Deployed(layers, 1).eval().requires_grad_(False)
    prepared = prepare(network, SHAPE, CPU)
    assert prepared.engine == "eager"
    assert prepared.reason is not None
    assert "Other" in prepared.reason
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(prepared.predict(images), network(images))


def test_an_engine_that_differs_is_not_used(make: Make, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMS, nn.ReLU, FORMS[nn.Identity])
    deployed = deploy(make({}), 1)
    prepared = prepare(deployed, SHAPE, CPU)
    assert prepared.engine == "eager"
    assert "differ by" in str(prepared.reason)
    with torch.inference_mode():
        assert torch.equal(prepared.predict(images), deployed(images))


def test_without_a_compiler_gates_are_made_of_onnx_operators(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernel.library.cache_clear()
    try:
        prepared = prepare(deploy(make({"lwta": {}}), 1), SHAPE, CPU)
    finally:
        kernel.library.cache_clear()
    assert prepared.engine == "onnxruntime"
    assert "compiler" in str(prepared.reason) or "blocks" in str(prepared.reason)


@pytest.mark.parametrize("engine", ENGINES)
def test_who_asks_for_an_engine_gets_it_or_the_reason(engine: str, make: Make) -> None:
    """A ReLU network has no gates for the kernel, and a CPU no CUDA graphs; compilation has its own test."""
    if engine == "compile":
        pytest.skip("slow to build")
    prepared = prepare(deploy(make({}), 1), SHAPE, CPU, engine)
    expected = {"auto": "onnxruntime", "onnxruntime-kernel": "eager", "cudagraph": "eager"}.get(engine, engine)
    assert prepared.engine == expected
    assert (prepared.reason is None) == (engine not in ("onnxruntime-kernel", "cudagraph"))


def test_there_is_no_other_engine(make: Make) -> None:
    with pytest.raises(UserError, match=r"the engine must be one of auto, eager.*'tensorrt'"):
        prepare(deploy(make({}), 1), SHAPE, CPU, "tensorrt")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_compiled_network_is_itself() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), GlobalAverage(), nn.Linear(8, 5))
    network = Deployed(layers, 1).eval().requires_grad_(False)
    prepared = prepare(network, SHAPE, CPU, "compile")
    assert (prepared.engine, prepared.reason) == ("compile", None)
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(prepared.predict(images), network(images))
