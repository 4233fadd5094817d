"""A deployed network as an ONNX model, written down layer by layer: milliseconds, where tracing takes seconds."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper
from torch import nn

from ..models.deploy import Deployed
from . import draws, layers  # noqa: F401 - they register their forms
from .graph import OPSET, Graph, UnsupportedLayerError, Value, write

INPUT, OUTPUT = "images", "probabilities"


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
    passes = [_probabilities(module, graph, Value(INPUT, shape)) for _ in range(module.passes)]
    mean = passes[0].name
    if len(passes) > 1:
        mean = graph.node("Mean", *(one.name for one in passes))
    graph.nodes.append(helper.make_node("Identity", [mean], [OUTPUT]))
    proto = helper.make_graph(
        graph.nodes,
        "deployed",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", *passes[0].shape])],
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
