"""A deployed network as an ONNX graph, written down layer by layer: milliseconds, where tracing takes seconds.

Each kind of layer has one function, found by the layer's exact type: a subclass may compute something else. A new one
joins with `@form(Layer)`; a layer without one raises `UnsupportedLayerError`. Layers that draw are in `draws`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ..models.build import Normalise
from ..models.deploy import Deployed, Repeat, Residual, Select, Zeros
from ..models.wrn import GlobalAverage, strided

OPSET = 18
INPUT, OUTPUT = "images", "probabilities"


class UnsupportedLayerError(Exception):
    """A layer has no form in the graph; the message says which."""


@dataclass(frozen=True)
class Value:
    """A tensor of the graph."""

    name: str
    shape: tuple[int, ...]
    """Without the batch axis."""
    times: int = 1
    """How often the batch is repeated in it."""


@dataclass(frozen=True)
class GateRule:
    """What a gate of U units does: softmax, or one winner, with noise of a scale on the logits."""

    units: int
    winner: bool
    scale: float


class Graph:
    """Nodes and constants under construction.

    Attributes:
        generator: Seeds of the random nodes.
        placeholders: Write gates, and what comes with them, as `kernel` wants them, not in operators of ONNX.
        gates: What the gates written so far do.
    """

    def __init__(self, seed: int, *, placeholders: bool = False) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.generator = np.random.default_rng(seed)
        self.placeholders = placeholders
        self.gates: list[GateRule] = []
        self._known: dict[int, tuple[Tensor, str]] = {}

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node of one output, and return the name of that."""
        output = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def split(self, value: str, axis: int) -> tuple[str, str]:
        """The two halves of a tensor along an axis."""
        first, second = f"{value}_first", f"{value}_second"
        self.nodes.append(helper.make_node("Split", [value], [first, second], axis=axis, num_outputs=2))
        return first, second

    def constant(self, value: Tensor | NDArray[Any] | float | list[int]) -> str:
        """A constant: floats in float32, lists as int64. A tensor that comes again is written once."""
        if isinstance(value, Tensor):
            if (known := self._known.get(id(value))) is not None:
                return known[1]
            array = value.detach().cpu().numpy()
        else:
            array = np.asarray(value, dtype=np.float32 if isinstance(value, float) else None)
        name = f"constant{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        if isinstance(value, Tensor):
            self._known[id(value)] = value, name  # holding the tensor keeps its id its own
        return name

    def seed(self) -> float:
        """A seed for one random node, in the range of onnxruntime's generator and exact as a float."""
        return float(self.generator.integers(1, 2**24) * 64 + 1)


Form = Callable[[Any, Graph, Value], Value]
FORMS: dict[type[nn.Module], Form] = {}
"""Exact type of a layer to the function that writes it down."""


def form(*kinds: type[nn.Module]) -> Callable[[Form], Form]:
    """Register what writes layers of these types."""

    def register(function: Form) -> Form:
        FORMS.update(dict.fromkeys(kinds, function))
        return function

    return register


def write(layer: nn.Module, graph: Graph, x: Value) -> Value:
    """Append a layer to the graph.

    Raises:
        UnsupportedLayerError: its type has no form.
    """
    function = FORMS.get(type(layer))
    if function is None:
        raise UnsupportedLayerError(f"a layer must have a form in `engines.graph`, but {type(layer).__name__} has none")
    return function(layer, graph, x)


def model(module: nn.Module, shape: tuple[int, int, int], *, seed: int) -> onnx.ModelProto:
    """A deployed network as an ONNX model in standard operators.

    It takes images `[N, C, H, W]` in [0, 1] for any N, and returns probabilities `[N, classes]`.

    Args:
        module: What `deploy` returned.
        shape: C, H, W of an image.
        seed: Of the draws.

    Raises:
        UnsupportedLayerError: it has a layer without a form.
    """
    return assemble(module, shape, Graph(seed))


def assemble(module: nn.Module, shape: tuple[int, int, int], graph: Graph) -> onnx.ModelProto:
    """Write a deployed network into an empty graph, as the model that `model` returns."""
    if not isinstance(module, Deployed):
        raise UnsupportedLayerError(f"a network must be deployed to have a graph, but got {type(module).__name__}")
    draws = [_probabilities(module, graph, Value(INPUT, shape)) for _ in range(module.passes)]
    mean = draws[0].name
    if len(draws) > 1:
        mean = graph.node("Mean", *(draw.name for draw in draws))
    graph.nodes.append(helper.make_node("Identity", [mean], [OUTPUT]))
    proto = helper.make_graph(
        graph.nodes,
        "deployed",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", *draws[0].shape])],
        list(graph.constants.values()),
    )
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def _probabilities(module: Deployed, graph: Graph, images: Value) -> Value:
    """Mean softmax over the draws of a repeated batch."""
    logits = write(module.layers, graph, images)
    name = graph.node("Softmax", logits.name, axis=1)
    if module.repeats > 1:
        name = graph.node("Reshape", name, graph.constant([module.repeats, -1, *logits.shape]))
        name = graph.node("ReduceMean", name, graph.constant([0]), keepdims=0)
    return Value(name, logits.shape)


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


@form(nn.BatchNorm2d)
def _batch_norm(layer: nn.BatchNorm2d, graph: Graph, x: Value) -> Value:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    constants = [layer.weight, layer.bias, layer.running_mean, layer.running_var]
    names = [graph.constant(tensor) for tensor in constants]
    return replace(x, name=graph.node("BatchNormalization", x.name, *names, epsilon=layer.eps))


@form(nn.Conv2d)
def _plain_convolution(layer: nn.Conv2d, graph: Graph, x: Value) -> Value:
    return convolve(layer, graph, x, graph.constant(layer.weight))


def convolve(layer: nn.Conv2d, graph: Graph, x: Value, weight: str) -> Value:
    """A convolution with these weights, which need not be the layer's own."""
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise UnsupportedLayerError(f"a convolution must be padded with zeros by numbers of pixels, but got {layer}")
    inputs = [x.name, weight] + ([] if layer.bias is None else [graph.constant(layer.bias)])
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
    return replace(x, name=name, shape=(layer.out_channels, *size))


@form(nn.Linear)
def _plain_linear(layer: nn.Linear, graph: Graph, x: Value) -> Value:
    return multiply(layer, graph, x, graph.constant(layer.weight))


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
    name = graph.node("Sigmoid", x.name) if graph.placeholders else graph.node("Concat", *[x.name] * draws, axis=0)
    return replace(x, name=name, times=x.times * draws)


@form(Select)
def _select(layer: Select, graph: Graph, x: Value) -> Value:
    if not len(layer.channels):
        raise UnsupportedLayerError("a layer must have channels, but one has lost them all")
    shape = (len(layer.channels), *x.shape[1:])
    if graph.placeholders:  # a convolution keeps onnxruntime's layout
        picks = torch.eye(x.shape[0])[layer.channels.cpu()].view(len(layer.channels), -1, 1, 1)
        return replace(x, name=graph.node("Conv", x.name, graph.constant(picks), kernel_shape=[1, 1]), shape=shape)
    return replace(x, name=graph.node("Gather", x.name, graph.constant(layer.channels), axis=1), shape=shape)


@form(Zeros)
def _zeros(layer: Zeros, graph: Graph, x: Value) -> Value:
    height, width = strided((x.shape[1], x.shape[2]), layer.stride[0])
    size = [layer.channels, height, width]
    one = graph.node("ReduceMax", x.name, graph.constant([1, 2, 3]), keepdims=1)
    zero = graph.node("Mul", one, graph.constant(0.0))
    return replace(x, name=graph.node("Expand", zero, graph.constant([1, *size])), shape=tuple(size))


from . import draws as _draws  # noqa: E402, F401 - registers the layers that draw
