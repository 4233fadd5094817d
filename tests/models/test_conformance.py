"""Every stochastic layer, gate and kind of noise against what it says in `conformance.MEMBERS`.

Laws are tested at level 1e-4 for a member and mode, shared by its p-values (Bonferroni), with fixed seeds.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from conformance import MEMBERS, Law, Member
from scipy import stats
from torch import Tensor, nn
from torch.func import functional_call

from robustsearch.models.build import Network, Normalise
from robustsearch.models.ibp import BlockPrior
from robustsearch.models.lwta import LWTA
from robustsearch.models.pni import PNILayer
from robustsearch.models.stochastic import (
    Stochastic,
    expandable,
    is_random,
    mean_network,
    stochastic_layers,
    straight_through,
    surrogate,
)
from robustsearch.training.loss import objective_terms

LEVEL = 1e-4
DRAWS, PASSES = 4000, 1500
"""Draws for a law: of one pass, or of a pass each where a pass shares a draw."""
MODES = {"random": nullcontext, "surrogate": surrogate, "straight": straight_through, "mean": mean_network}

every = pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
laws = pytest.mark.parametrize(
    "member",
    [pytest.param(member, marks=[pytest.mark.slow] * member.shared, id=member.name) for member in MEMBERS],
)
"""Every member; slow where each draw is a pass."""
stacked = pytest.mark.parametrize(
    "member", [member for member in MEMBERS if member.shape is not None], ids=lambda member: member.name
)


def draws(member: Member, layer: Stochastic) -> tuple[np.ndarray, np.ndarray]:
    """The batch of a pass `[N, ...]`, and independent outputs for one image `[draws, ...]`, float64."""
    x = member.inputs()
    with torch.no_grad():
        if member.shared:
            y = torch.stack([layer(*x).reshape(output_shape(member, layer)) for _ in range(PASSES)])
        else:
            x = tuple(features.repeat(DRAWS, *[1] * (features.dim() - 1)) for features in x)
            y = layer(*x)
    batch = x[0].double().numpy() if x else np.zeros((1, 0))
    return batch, y.double().numpy()


def output_shape(member: Member, layer: Stochastic) -> tuple[int, ...]:
    """Of one image, from the sizes that the layer was made with."""
    if isinstance(layer, BlockPrior):
        return (len(layer.t),)
    if isinstance(layer, PNILayer):
        return (3, 2, 2) if isinstance(layer, nn.Conv2d) else (4,)
    assert member.shape is not None
    return member.shape


def check(law: Law, layer: Stochastic, batch: np.ndarray, y: np.ndarray) -> None:
    values = list(law(layer, batch, y))
    assert values
    assert min(values) > LEVEL / len(values)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_shape_and_dtype(member: Member, dtype: torch.dtype) -> None:
    """In every mode, training and not, for one image and three; finite, and KL terms in float32 at least.

    The weights of a prior are for LWTA to cast: they may stay in float32.
    """
    single = torch.promote_types(dtype, torch.float32)
    for images in (1, 3):
        layer, x = member.build().to(dtype), member.inputs(images, dtype)
        shape = output_shape(member, layer) if member.shape is None else (images, *output_shape(member, layer))
        for training in (True, False):
            for context in MODES.values():
                with context(layer.train(training)):
                    y = layer(*x)
                assert y.shape == shape
                assert y.dtype in ({dtype, single} if isinstance(layer, BlockPrior) else {dtype})
                assert y.isfinite().all()
        layer.train()(*x)
        assert all(term.dtype == single for term in layer.kl().values())


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(member: Member, dtype: torch.dtype) -> None:
    """The mean network within three units in the last place of sums of this size; and autocast of the whole."""
    layer, half = member.build().eval(), member.build().to(dtype).eval()
    with mean_network(layer), mean_network(half), torch.no_grad():
        expected, found = layer(*member.inputs(3)), half(*member.inputs(3, dtype))
    tolerance = 3 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=2 * tolerance)
    with torch.autocast("cpu", dtype=dtype):
        assert layer.train()(*member.inputs(3)).isfinite().all()


@laws
def test_law_in_training(member: Member) -> None:
    layer = member.build()
    check(member.training, layer, *draws(member, layer))


@laws
def test_law_at_inference(member: Member) -> None:
    layer = member.build().eval()
    check(member.inference, layer, *draws(member, layer))


@laws
@pytest.mark.parametrize("training", [True, False])
def test_mean_network_and_surrogate(member: Member, training: bool) -> None:
    """The mean network is certain; so is the surrogate where it is the mean, and else it keeps the law."""
    layer, x = member.build().train(training), member.inputs(3)
    expected = member.mean(layer, x[0].double().numpy() if x else np.zeros((1, 0)))
    for context in (mean_network, surrogate) if member.smooth else (mean_network,):
        with context(layer), torch.no_grad():
            before = layer.noise.state()
            np.testing.assert_allclose(layer(*x), expected, rtol=1e-5, atol=1e-5)
            if not layer.training:  # in training the prior draws its KL term
                assert same(layer.noise.state(), before), "certain, yet it draws"
            assert not layer.random
    if not member.smooth:
        with surrogate(layer):
            check(member.training if training else member.inference, layer, *draws(member, layer))


@pytest.mark.parametrize(
    "member", [member for member in MEMBERS if member.averages_to_mean], ids=lambda member: member.name
)
def test_the_mean_over_draws_is_the_mean_network(member: Member) -> None:
    layer = member.build().eval()
    batch, y = draws(member, layer)
    expected = np.broadcast_to(member.mean(layer, batch[:1]), y.shape)[0]
    bound = stats.norm.isf(LEVEL / (2 * expected.size)) * y.std(axis=0) / math.sqrt(len(y))
    assert (np.abs(y.mean(axis=0) - expected) <= bound + 1e-5).all()


@every
def test_random_and_scope_say_what_draws_do(member: Member) -> None:
    """`random`: two passes differ. `scope` "sample": two equal images of a pass differ; "forward": they do not."""
    layer = member.build().eval()
    for name, context in MODES.items():
        with context(layer), torch.no_grad():
            x = member.inputs()
            x = tuple(features.repeat(40, *[1] * (features.dim() - 1)) for features in x)
            before = layer.noise.state()
            first, second = layer(*x), layer(*x)
            assert layer.random == (not same(layer.noise.state(), before)), "draws what it does not use"
            assert layer.random == is_random(layer) == (not torch.equal(first, second)), name
            if layer.random:
                alike = torch.allclose(first, first[:1].expand_as(first))
                assert alike == (layer.scope == "forward") == (not expandable(layer))


@every
@pytest.mark.parametrize(("training", "mode"), [(True, "random"), (False, "random"), (False, "surrogate")])
def test_gradients_by_finite_differences(member: Member, training: bool, mode: str) -> None:
    """Of the output and the KL terms, in the features and every parameter, in float64 with the draws held.

    PNI takes no gradient through sigma, so that is held too.
    """
    layer = member.build().double().train(training)
    x = tuple(features.requires_grad_() for features in member.inputs(1, torch.float64))
    if isinstance(layer, PNILayer):
        tensors = {"weights": layer.weight, "inputs": x[0], "activations": x[0]}
        layer.sigma = tensors[layer.where].detach().std()
    names, parameters = zip(*layer.named_parameters(), strict=True) if list(layer.parameters()) else ((), ())
    state = layer.noise.state()

    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        layer.noise.load_state(state)
        y = functional_call(layer, dict(zip(names, tensors[len(x) :], strict=True)), tensors[: len(x)])
        return (y, *layer.kl().values()) if training else (y,)

    with MODES[mode](layer):
        assert torch.autograd.gradcheck(outputs, (*x, *parameters), atol=1e-6)


@every
def test_its_own_generator_decides_and_the_global_one_does_not(member: Member) -> None:
    """Same seed, same draws, whatever torch's global generator does; it is not moved. Another seed, other draws."""

    def passes(seed: int) -> list[Tensor]:
        layer = member.build()
        layer.noise.seed(seed)
        return [layer.train(training)(*member.inputs(20)).detach() for training in (True, False)]

    first = passes(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        before = torch.get_rng_state()
        again = [layer_pass.clone() for layer_pass in passes(3)]
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0], passes(4)[0])


@every
@pytest.mark.parametrize("training", [True, False])
def test_state_goes_through_a_checkpoint(member: Member, training: bool) -> None:
    """Parameters by the state dict, the stream by that of the noise, into a layer of another seed."""
    layer, other, x = member.build(1).train(training), member.build(2).train(training), member.inputs(3)
    layer(*x)
    other.load_state_dict(layer.state_dict())
    other.noise.load_state(layer.noise.state())
    assert torch.equal(layer(*x), other(*x))
    twin = copy.deepcopy(layer)
    assert torch.equal(layer(*x), twin(*x))


@laws
def test_kl_is_the_mean_log_ratio(member: Member) -> None:
    """Each term against Monte Carlo in numpy from the definitions (z-test), >= 0, with a gradient; else no terms."""
    layer, x = member.build(), member.inputs(2)
    if member.log_ratios is None:
        layer(*x)
        assert layer.kl() == {}
        return
    with pytest.raises(RuntimeError, match="forward pass in training mode"):
        layer.eval()(*x), layer.kl()
    layer.train()
    parts = [part for part in stochastic_layers(layer) if part.kl.__func__ is Stochastic.kl]
    found: dict[str, list[float]] = {}
    for _ in range(400):
        layer(*x)
        for name, term in ((name, term) for part in parts for name, term in part.kl().items()):
            assert term.shape == ()
            found.setdefault(name, []).append(term.item())
    features = x[0].double().numpy() if x else np.zeros((1, 0))
    references = member.log_ratios(layer, features, np.random.default_rng(5), 40_000)
    assert found.keys() == references.keys()
    for name, terms in found.items():
        assert min(terms) >= 0
        error = math.hypot(np.std(terms) / math.sqrt(len(terms)), np.std(references[name]) / 200)
        assert abs(np.mean(terms) - np.mean(references[name])) < stats.norm.isf(LEVEL / 6) * error, name
    with pytest.raises(RuntimeError, match="forward pass in training mode"):
        copy.deepcopy(layer).kl()


@every
def test_kl_is_zero_at_the_prior(member: Member) -> None:
    """Equal logits; sticks Kumaraswamy(alpha, 1) = Beta(alpha, 1). (That of z depends on the sticks: see test_ibp.)"""
    layer = member.build()
    x = tuple(torch.full_like(features, 0.7) for features in member.inputs(2))
    for prior in (part for part in layer.modules() if isinstance(part, BlockPrior)):
        prior.raw_a.data.fill_(math.log(math.expm1(prior.alpha)))
        prior.raw_c.data.fill_(math.log(math.expm1(1.0)))
    layer(*x)
    terms = dict(layer.kl())
    if isinstance(layer, LWTA) and layer.ibp is not None:
        terms |= layer.ibp.kl()
    assert terms.get("gate", torch.zeros(())).item() == pytest.approx(0, abs=1e-6)
    assert terms.get("sticks", torch.zeros(())).item() == pytest.approx(0, abs=1e-5)


@stacked
def test_the_loss_holds_its_kl_and_teaches_every_parameter(member: Member) -> None:
    """In a network of this layer and a classifier: each term once, at its weight, positive and with a gradient."""
    layer = member.build()
    x, labels = *member.inputs(6), torch.arange(6) % 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.Linear(math.prod(output_shape(member, layer)), 3)
    body = nn.Sequential(layer, nn.Flatten(), head)
    network = Network(nn.Identity(), Normalise([0.0], [1.0]), body, layer.noise).train()
    if x.dim() == 2:
        network.normalise = nn.Identity()
    terms = objective_terms(network, x, None, labels, clean_weight=0.0, kl_weight=0.5, n_train=40)
    names = set() if member.log_ratios is None else {"gate"}
    if isinstance(layer, LWTA) and layer.ibp is not None:
        names |= {"sticks", "z"}
    assert terms.keys() == {"ce", *(f"kl_{name}" for name in names)}
    for name, value in network.kl().items():
        assert terms[f"kl_{name}"].item() == pytest.approx(0.5 / 40 * value.item())
        assert value.item() > 0
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # Dynamo looks
@pytest.mark.parametrize("member", [member for member in MEMBERS if member.compiled], ids=lambda member: member.name)
def test_compiled_it_is_the_same(member: Member) -> None:
    """Traced by Dynamo and AOTAutograd: output, KL and gradient of training, and output of inference.

    In the layout of the plain formulas, which are what is compiled: fused gates have the same law by other draws.
    """
    plain, other = member.build(), member.build()
    compiled: Callable[..., Any] = torch.compile(other, backend="aot_eager")
    torch._dynamo.reset()
    results = []
    for layer, run in ((plain, plain), (other, compiled)):
        (x,) = (features.contiguous().requires_grad_() for features in member.inputs(3))
        y = run(x)
        kl = torch.stack([torch.zeros(()), *layer.kl().values()])
        (gradient,) = torch.autograd.grad(y.square().sum() + kl.sum(), x)
        layer.eval()
        results.append((y, kl, gradient, run(x)))
    torch.testing.assert_close(*results)


def test_the_table_has_every_stochastic_layer() -> None:
    """A new subclass of Stochastic has to join."""

    def leaves(cls: type) -> set[type]:
        return {cls}.union(*map(leaves, cls.__subclasses__())) if cls.__module__.startswith("robustsearch") else set()

    concrete = {cls for cls in leaves(Stochastic) if "forward" in cls.__dict__}
    assert concrete == {type(member.build()) for member in MEMBERS}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
