"""An ONNX graph under construction, and who writes which layer into it.

Each kind of layer has one function, found by the layer's exact type: a subclass may compute something else. A new one
joins with `@form(Layer)` in `layers` or `draws`; a layer without one raises `UnsupportedLayerError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

OPSET = 18


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
    """What a gate of U units does: noise of a scale on the logits, and then a softmax or one winner."""

    units: int
    scale: float
    temperature: float | None
    """Of the softmax; None is one winner."""


class Graph:
    """Nodes and constants under construction.

    Attributes:
        generator: Seeds of the random nodes.
        block: Channels come in multiples of so many, those that a pruned layer lacks being zeros, and gates with what
            belongs to them as `kernel` replaces them; None writes operators of ONNX for the channels there are.
        gates: What the gates written so far do.
    """

    def __init__(self, seed: int, *, block: int | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.generator = np.random.default_rng(seed)
        self.block = block
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

    def filled(self, channels: int) -> int:
        """The next multiple of a block, where channels come in blocks."""
        return -(-channels // self.block) * self.block if self.block else channels

    def seed(self) -> float:
        """A seed for one random node, in the range of onnxruntime's generator and exact as a float."""
        return float(self.generator.integers(1, 2**24) * 64)


def fit(tensor: Tensor, *sizes: int, value: float = 0.0) -> Tensor:
    """A tensor enlarged to these sizes of its first axes, by `value`; itself where it has them already."""
    if tensor.shape[: len(sizes)] == sizes:
        return tensor
    whole = tensor.new_full((*sizes, *tensor.shape[len(sizes) :]), value)
    whole[tuple(slice(size) for size in tensor.shape)] = tensor
    return whole


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
        raise UnsupportedLayerError(f"a layer must have a form in `engines`, but {type(layer).__name__} has none")
    return function(layer, graph, x)
