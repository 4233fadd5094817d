"""Layers that draw nothing, and how a network is put together, as nodes of an ONNX graph."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ..models.build import Normalise
from ..models.convolution import Conv2d, strided
from ..models.deploy import Repeat, Residual, Select, Zeros
from ..models.wrn import BatchNorm, GlobalAverage
from .graph import Graph, UnsupportedLayerError, Value, fit, form, write


@form(nn.Sequential)
def _sequential(layer: nn.Sequential, graph: Graph, x: Value) -> Value:
    for part in layer:
        x = write(part, graph, x)
    return x


@form(nn.Identity)
def _identity(layer: nn.Identity, graph: Graph, x: Value) -> Value:
    return x


@form(Normalise)
def _normalise(layer: Normalise, graph: Graph, x: Value) -> Value:
    centred = graph.node("Sub", x.name, graph.constant(layer.mean))
    return replace(x, name=graph.node("Div", centred, graph.constant(layer.std)))


@form(nn.ReLU)
def _relu(layer: nn.ReLU, graph: Graph, x: Value) -> Value:
    return replace(x, name=graph.node("Relu", x.name))


@form(nn.BatchNorm2d, BatchNorm)
def _batch_norm(layer: nn.BatchNorm2d, graph: Graph, x: Value) -> Value:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    constants = [(layer.weight, 0.0), (layer.bias, 0.0), (layer.running_mean, 0.0), (layer.running_var, 1.0)]
    names = [graph.constant(fit(tensor, x.shape[0], value=value)) for tensor, value in constants]
    return replace(x, name=graph.node("BatchNormalization", x.name, *names, epsilon=layer.eps))


@form(nn.Conv2d, Conv2d)
def _plain_convolution(layer: nn.Conv2d, graph: Graph, x: Value) -> Value:
    weight = fit(layer.weight, graph.filled(layer.out_channels), x.shape[0] // layer.groups)
    return convolve(layer, graph, x, graph.constant(weight))


def convolve(layer: nn.Conv2d, graph: Graph, x: Value, weight: str) -> Value:
    """A convolution with these weights, which need not be the layer's own; all its channels come in whole blocks."""
    channels = graph.filled(layer.out_channels)
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise UnsupportedLayerError(f"a convolution must be padded with zeros by numbers of pixels, but got {layer}")
    inputs = [x.name, weight] + ([] if layer.bias is None else [graph.constant(fit(layer.bias, channels))])
    name = graph.node(
        "Conv",
        *inputs,
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        dilations=layer.dilation,
        pads=[*layer.padding, *layer.padding],
        group=layer.groups,
    )
    size = [
        (pixels + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for pixels, padding, dilation, kernel, stride in zip(
            x.shape[1:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
        )
    ]
    return replace(x, name=name, shape=(channels, *size))


@form(nn.Linear)
def _plain_linear(layer: nn.Linear, graph: Graph, x: Value) -> Value:
    return multiply(layer, graph, x, graph.constant(fit(layer.weight, layer.out_features, x.shape[0])))


def multiply(layer: nn.Linear, graph: Graph, x: Value, weight: str) -> Value:
    """A linear layer with these weights, which need not be the layer's own."""
    inputs = [x.name, weight] + ([] if layer.bias is None else [graph.constant(layer.bias)])
    return replace(x, name=graph.node("Gemm", *inputs, transB=1), shape=(layer.out_features,))


@form(GlobalAverage)
def _global_average(layer: GlobalAverage, graph: Graph, x: Value) -> Value:
    mean = graph.node("GlobalAveragePool", x.name)
    return replace(x, name=graph.node("Flatten", mean, axis=1), shape=x.shape[:1])


@form(Residual)
def _residual(layer: Residual, graph: Graph, x: Value) -> Value:
    activated = write(layer.enter, graph, x)
    branch = None if layer.branch is None else write(layer.branch, graph, activated)
    skip = x if layer.shortcut is None else write(layer.shortcut, graph, activated)
    if branch is None:
        return skip
    if skip.times != branch.times:  # the draws begin inside this block
        skip = _repeated(graph, skip, branch.times // skip.times)
    return replace(branch, name=graph.node("Add", branch.name, skip.name))


@form(Repeat)
def _repeat(layer: Repeat, graph: Graph, x: Value) -> Value:
    return _repeated(graph, x, layer.draws)


def _repeated(graph: Graph, x: Value, draws: int) -> Value:
    name = graph.node("Sigmoid", x.name) if graph.block else graph.node("Concat", *[x.name] * draws, axis=0)
    return replace(x, name=name, times=x.times * draws)


@form(Select)
def _select(layer: Select, graph: Graph, x: Value) -> Value:
    if not len(layer.channels):
        raise UnsupportedLayerError("a layer must have channels, but one has lost them all")
    shape = (graph.filled(len(layer.channels)), *x.shape[1:])
    if graph.block:  # a convolution keeps onnxruntime's layout
        picks = fit(torch.eye(x.shape[0])[layer.channels.cpu()], shape[0])[:, :, None, None]
        return replace(x, name=graph.node("Conv", x.name, graph.constant(picks), kernel_shape=[1, 1]), shape=shape)
    return replace(x, name=graph.node("Gather", x.name, graph.constant(layer.channels), axis=1), shape=shape)


@form(Zeros)
def _zeros(layer: Zeros, graph: Graph, x: Value) -> Value:
    height, width = strided((x.shape[1], x.shape[2]), layer.stride[0])
    size = [graph.filled(layer.channels), height, width]
    if graph.block:  # as in `_select`
        nothing = graph.constant(torch.zeros(size[0], x.shape[0], 1, 1))
        name = graph.node("Conv", x.name, nothing, kernel_shape=[1, 1], strides=layer.stride)
        return replace(x, name=name, shape=tuple(size))
    one = graph.node("ReduceMax", x.name, graph.constant([1, 2, 3]), keepdims=1)
    zero = graph.node("Mul", one, graph.constant(0.0))
    return replace(x, name=graph.node("Expand", zero, graph.constant([1, *size])), shape=tuple(size))
