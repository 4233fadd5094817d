"""Layers that draw, as nodes of an ONNX graph that draws anew at each run.

onnxruntime's uniforms are multiples of 2^-31 or so in [0, 1), from a generator of each node with a seed of its own. Two
units need one of them: unit 0 wins iff r < sigmoid((h_0 - h_1) / s), the same as logit r < (h_0 - h_1) / s.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..models.lwta import LWTA
from ..models.pni import PNIConv2d, PNILayer, PNILinear
from ..models.smoothing import GaussianNoise
from .graph import GateRule, Graph, UnsupportedLayerError, Value, form
from .layers import convolve, multiply


@form(LWTA)
def _lwta(layer: LWTA, graph: Graph, x: Value) -> Value:
    rule = GateRule(layer.units, *layer.rule(training=False))
    graph.gates.append(rule)
    if graph.block:
        gated = replace(x, name=graph.node("Tanh", x.name))
    else:
        pixels = int(np.prod(x.shape[1:], dtype=np.int64))
        blocks = graph.node("Reshape", x.name, graph.constant([-1, layer.blocks, layer.units, pixels]))
        name = _pair(graph, blocks, rule) if layer.units == 2 else _several(graph, blocks, rule)
        gated = replace(x, name=graph.node("Reshape", name, graph.constant([-1, *x.shape])))
    if layer.ibp is not None:
        z = layer.ibp().repeat_interleave(layer.units).view(-1, *[1] * (len(x.shape) - 1))
        gated = replace(gated, name=graph.node("Mul", gated.name, graph.constant(z)))
    return gated


def _pair(graph: Graph, blocks: str, rule: GateRule) -> str:
    """Gated features `[N, B, 2, pixels]` of blocks of two."""
    first, second = graph.split(blocks, axis=2)
    if rule.temperature is None and not rule.scale:
        share = graph.node("Cast", graph.node("GreaterOrEqual", first, second), to=1)
    elif rule.temperature is None:
        chance = graph.node("Sigmoid", _divided(graph, graph.node("Sub", first, second), rule.scale))
        r = graph.node("RandomUniformLike", chance, low=0.0, high=1.0, seed=graph.seed())
        share = graph.node("Cast", graph.node("Less", r, chance), to=1)
    else:
        margin = graph.node("Sub", first, second)
        if rule.scale:  # a logistic draw, log r - log(1 - r)
            r = graph.node("RandomUniformLike", margin, low=2.0**-24, high=1 - 2.0**-24, seed=graph.seed())
            odds = graph.node("Div", r, graph.node("Sub", graph.constant(1.0), r))
            logistic = graph.node("Mul", graph.node("Log", odds), graph.constant(float(rule.scale)))
            margin = graph.node("Add", margin, logistic)
        share = graph.node("Sigmoid", _divided(graph, margin, rule.temperature))
    lost = graph.node("Mul", second, share)
    return graph.node("Concat", graph.node("Mul", first, share), graph.node("Sub", second, lost), axis=2)


def _several(graph: Graph, blocks: str, rule: GateRule) -> str:
    """Gated features `[N, B, U, pixels]` of blocks of any number of units: the Gumbel-max trick."""
    axis, logits = graph.constant([2]), blocks
    if rule.scale:
        uniform = graph.node("RandomUniformLike", blocks, low=2.0**-32, high=1.0, seed=graph.seed())
        gumbel = graph.node("Log", graph.node("Neg", graph.node("Log", uniform)))
        logits = graph.node("Sub", blocks, graph.node("Mul", gumbel, graph.constant(float(rule.scale))))
    if rule.temperature is not None:
        most = graph.node("ReduceMax", logits, axis, keepdims=1)
        weights = graph.node("Exp", _divided(graph, graph.node("Sub", logits, most), rule.temperature))
        total = graph.node("ReduceSum", weights, axis, keepdims=1)
        return graph.node("Mul", blocks, graph.node("Div", weights, total))
    index = graph.node("ArgMax", logits, axis=2, keepdims=1)
    places = graph.constant(np.arange(rule.units).reshape(1, 1, rule.units, 1))
    return graph.node("Mul", blocks, graph.node("Cast", graph.node("Equal", index, places), to=1))


def _divided(graph: Graph, x: str, divisor: float) -> str:
    return x if divisor == 1 else graph.node("Div", x, graph.constant(float(divisor)))


@form(GaussianNoise)
def _smoothing(layer: GaussianNoise, graph: Graph, x: Value) -> Value:
    if not layer.random:
        return x
    noise = graph.node("RandomNormalLike", x.name, scale=layer.sigma, seed=graph.seed())
    return replace(x, name=graph.node("Add", x.name, noise))


@form(PNIConv2d)
def _noisy_convolution(layer: PNIConv2d, graph: Graph, x: Value) -> Value:
    x = _perturbed(layer, "inputs", graph, x)
    if graph.filled(layer.out_channels) != layer.out_channels:
        raise UnsupportedLayerError(f"noise on weights needs whole blocks of channels, but got {layer.out_channels}")
    y = convolve(layer, graph, x, _noisy_weight(layer, graph, x))
    return _perturbed(layer, "activations", graph, y)


@form(PNILinear)
def _noisy_linear(layer: PNILinear, graph: Graph, x: Value) -> Value:
    x = _perturbed(layer, "inputs", graph, x)
    y = multiply(layer, graph, x, _noisy_weight(layer, graph, x))
    return _perturbed(layer, "activations", graph, y)


def _noisy_weight(layer: PNIConv2d | PNILinear, graph: Graph, x: Value) -> str:
    """Weights with noise on them, w + alpha sigma eta, where the layer has it there; both factors are constants."""
    if layer.weight.shape[1] != x.shape[0]:
        raise UnsupportedLayerError(f"noise on weights needs whole blocks of channels, but got {layer.weight.shape[1]}")
    weight = graph.constant(layer.weight)
    if layer.where != "weights" or not layer.random:
        return weight
    assert layer.sigma is not None, "deployment keeps sigma"
    draw = graph.node("RandomNormal", shape=list(layer.weight.shape), seed=graph.seed())
    return graph.node("Add", weight, graph.node("Mul", draw, graph.constant(layer.alpha * layer.sigma)))


def _perturbed(layer: PNILayer, where: str, graph: Graph, x: Value) -> Value:
    """A tensor with noise, v + alpha sigma eta, with the unbiased standard deviation of the whole tensor `[N, ...]`."""
    if layer.where != where or not layer.random:
        return x
    centred = graph.node("Sub", x.name, graph.node("ReduceMean", x.name))
    count = graph.node("Cast", graph.node("Size", x.name), to=1)
    freedom = graph.node("Sub", count, graph.constant(1.0))
    sigma = graph.node("Sqrt", graph.node("Div", graph.node("ReduceSumSquare", centred), freedom))
    draw = graph.node("RandomNormalLike", x.name, seed=graph.seed())
    noise = graph.node("Mul", draw, graph.node("Mul", graph.constant(layer.alpha), sigma))
    return replace(x, name=graph.node("Add", x.name, noise))
