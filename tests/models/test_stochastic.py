"""The source of randomness, the modes of a network, and what its draws need."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from scipy import stats
from torch import Tensor

from robustsearch.models.build import Network
from robustsearch.models.stochastic import (
    Noise,
    average_draws,
    expandable,
    is_random,
    mean_network,
    repeat_batch,
    stochastic_layers,
    surrogate,
)
from robustsearch.recipe import Recipe

X = torch.zeros(1000)


def stream(noise: Noise) -> Tensor:
    return torch.stack([noise.uniform((5,), X), noise.normal((5,), X)])


def test_a_seed_names_a_stream() -> None:
    assert torch.equal(stream(Noise(3)), stream(Noise(3)))
    assert not torch.equal(stream(Noise(3)), stream(Noise(4)))
    noise = Noise(4)
    stream(noise)
    noise.seed(3)
    assert torch.equal(stream(noise), stream(Noise(3)))


def test_global_generators_are_neither_read_nor_moved() -> None:
    before = torch.get_rng_state()
    first = stream(Noise(3))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert torch.equal(stream(Noise(3)), first)


def test_the_logistic_draws_have_their_law_and_the_coarse_ones_their_grid() -> None:
    """Kolmogorov-Smirnov, level 1e-4; 2^16 quantiles, all as likely (chi-square in 256 bins); no two draws in step."""
    noise = Noise(0)
    for draw in (noise.logistic, noise.coarse_logistic):
        assert stats.kstest(draw((20_000,), X).numpy(), "logistic").pvalue > 1e-4
        assert draw((3, 5), X).shape == (3, 5)
        assert draw((3,), X.double()).dtype == torch.float64
    quantiles = noise.coarse_logistic((1_000_001,), X).double().sigmoid() * 2**16 - 0.5
    steps = quantiles.round()
    assert (quantiles - steps).abs().max() < 0.05
    assert 0 <= steps.min() < steps.max() <= 2**16 - 1
    bins = torch.bincount((steps / 256).long(), minlength=256)
    assert stats.chisquare(bins.numpy()).pvalue > 1e-4
    for lag in range(1, 5):  # four draws come from one number
        assert abs(stats.pearsonr(steps[lag:], steps[:-lag]).statistic) < 4 / 1000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_laws(dtype: torch.dtype) -> None:
    """Kolmogorov-Smirnov, level 1e-4."""
    noise, like = Noise(0), torch.zeros(1, dtype=dtype)
    for draw, law in ((noise.uniform, "uniform"), (noise.normal, "norm")):
        sample = draw((20_000,), like)
        assert sample.dtype == dtype
        assert stats.kstest(sample.numpy(), law).pvalue > 1e-4


def test_low_precision_draws_in_float32() -> None:
    like = torch.zeros(1, dtype=torch.bfloat16)
    assert Noise(0).uniform((2,), like).dtype == Noise(0).normal((2,), like).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_excludes_0_and_1(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least and the greatest number that torch.rand can give, a multiple of eps / 2, have finite logits."""
    ends = torch.tensor([0, 1 - torch.finfo(dtype).eps / 2], dtype=dtype)
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: ends.clone())
    draw = Noise(0).uniform((2,), ends)
    assert torch.logit(draw).isfinite().all()
    assert torch.log(-torch.log(draw)).isfinite().all()


def test_state_goes_through_a_checkpoint() -> None:
    noise, other = Noise(3), Noise(7)
    stream(noise)
    file = io.BytesIO()
    torch.save(noise.state(), file)
    file.seek(0)
    expected = stream(noise)
    other.load_state(torch.load(file, weights_only=True))
    assert torch.equal(stream(other), expected)


def test_state_of_an_absent_device_is_kept() -> None:
    noise = Noise(3)
    stream(noise)
    state = noise.state() | {"cuda:7": torch.arange(16, dtype=torch.uint8)}
    noise.load_state(state)
    stream(noise)
    assert torch.equal(noise.state()["cuda:7"], state["cuda:7"])


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda noise: pickle.loads(pickle.dumps(noise))])
def test_a_copy_continues_alone(clone: Callable[[Noise], Noise]) -> None:
    noise = Noise(3)
    stream(noise)
    twin = clone(noise)
    expected = stream(noise)
    assert torch.equal(stream(twin), expected)


def test_layers_of_a_copied_network_share_the_copied_noise(make: Callable[..., Network]) -> None:
    network = make({"lwta": {"ibp": {}}, "pni": {}, "smoothing": {}})
    twin = copy.deepcopy(network)
    assert twin.noise is not network.noise
    assert all(layer.noise is twin.noise for layer in stochastic_layers(twin))


@pytest.mark.parametrize(("context", "mode"), [(surrogate, "surrogate"), (mean_network, "mean")])
def test_modes_are_set_and_restored(context: Callable, mode: str, make: Callable[..., Network]) -> None:
    network = make({"lwta": {"ibp": {}}, "pni": {}, "smoothing": {}})
    layers = stochastic_layers(network)
    assert len(layers) == 7 * 2 + 10 + 1  # activations with their priors, layers with weights, input noise
    layers[0].mode = "mean"
    before = [layer.mode for layer in layers]
    with context(network):
        assert {layer.mode for layer in layers} == {mode}
        with surrogate(network), mean_network(network):
            assert {layer.mode for layer in layers} == {"mean"}
        assert {layer.mode for layer in layers} == {mode}
    assert [layer.mode for layer in layers] == before
    with pytest.raises(KeyError), context(network):
        raise KeyError
    assert [layer.mode for layer in layers] == before


@pytest.mark.parametrize("context", [nullcontext, surrogate, mean_network])
def test_is_random_says_whether_evaluation_passes_differ(
    recipe: Recipe, context: Callable, make: Callable[..., Network], images: Tensor
) -> None:
    network = make(recipe).eval()
    if context is nullcontext:
        assert is_random(network) == recipe.is_stochastic
    with context(network):
        assert is_random(network) == (not torch.equal(network(images), network(images)))
        assert context is not mean_network or not is_random(network)


def test_expandable_says_whether_images_of_a_batch_differ(
    recipe: Recipe, make: Callable[..., Network], images: Tensor
) -> None:
    network = make(recipe).eval()
    assert expandable(network) == (recipe.pni is None or recipe.pni.where != "weights")
    with mean_network(network):
        assert expandable(network)
    if expandable(network) and is_random(network):
        first, second = network(repeat_batch(images, 2)).view(2, 4, 10)
        assert ((first - second).abs() > 1e-6).any(dim=1).all()


def test_average_draws_is_the_mean_softmax_of_a_repeated_batch() -> None:
    x = torch.arange(6.0).view(3, 2)
    assert torch.equal(repeat_batch(x, 2), torch.cat([x, x]))
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    expected = (logits[:4].exp() / logits[:4].exp().sum(1, True) + logits[4:].exp() / logits[4:].exp().sum(1, True)) / 2
    torch.testing.assert_close(average_draws(logits, 2), expected)
