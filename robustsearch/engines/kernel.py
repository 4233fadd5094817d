"""Gates as one pass over memory inside onnxruntime: `native/gate.c`, compiled once for a machine and kept.

onnxruntime keeps the features between convolutions in blocks of 8 or 16 channels. In its own operators a gate is ten
passes over them, and a uniform draw costs 3 ns; here it is one pass, with batch norm and draws in it.

How a graph gets them: `draws` writes a gate as Tanh and a repeated batch as Sigmoid, which our networks use for nothing
else; onnxruntime chooses the layout of everything and fuses both into what comes before; and then they are replaced.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from .. import native
from ..models.deploy import Deployed
from .graph import OPSET, GateRule, Graph, UnsupportedLayerError
from .onnx_model import assemble

DOMAIN, BLOCKED = "robustsearch", "com.microsoft.nchwc"
GATE, REPEAT = "Tanh", "Sigmoid"
SAME_LAYOUT = ("Add", "Sum", "Mul", "Relu", GATE, REPEAT)
"""Operators whose output has the layout of their first input."""


@functools.cache
def library() -> Path:
    """The compiled operators.

    Raises:
        UnsupportedLayerError: onnxruntime has no blocked layout here, or there is no compiler that knows vectors.
    """
    try:
        return native.compiled("gate.c", BLOCK=_block())
    except native.CompilerError as error:
        raise UnsupportedLayerError(str(error)) from error


@functools.cache
def _block() -> int:
    """Channels in a block of onnxruntime's layout on this machine.

    Found from the filter of a convolution of 1 channel into 1, which it pads to a block.

    Raises:
        UnsupportedLayerError: it has no blocked layout here, or one that the kernel does not know.
    """
    filters = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 2, 2])],
        [filters],
    )
    probe = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    padded = [tensor.dims[0] for tensor in _optimised(probe).graph.initializer if tensor.dims[:1] != [1]]
    if (block := max(padded, default=0)) not in (8, 16):
        raise UnsupportedLayerError(f"onnxruntime must have blocks of 8 or 16 channels here, but has {block}")
    return block


def _optimised(model: onnx.ModelProto) -> onnx.ModelProto:
    """What onnxruntime makes of a model for this machine."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # that the file suits this machine only is what we want
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(file)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(file)


def model(module: nn.Module, shape: tuple[int, int, int], *, seed: int) -> onnx.ModelProto:
    """A deployed network as `onnx_model.model` has it, but for this machine, and with the kernel's gates.

    Raises:
        UnsupportedLayerError: it has a layer without a form, or gates that the kernel does not have.
    """
    graph = Graph(seed, block=_block())
    written = assemble(module, shape, graph)
    if len(set(graph.gates)) != 1:
        raise UnsupportedLayerError(f"the gate kernel needs gates of one kind, but got {len(set(graph.gates))}")
    rule = graph.gates[0]
    known = rule.temperature is None or (rule.scale, rule.temperature) == (0.0, 1.0)
    if rule.units not in native.UNITS or not known:
        raise UnsupportedLayerError(f"the gate kernel has 2, 4 or 8 units, winners and softmax, but got {rule}")
    assert isinstance(module, Deployed)
    return _with_kernel(_optimised(written), rule, module.repeats, seed)


def _with_kernel(optimised: onnx.ModelProto, rule: GateRule, draws: int, seed: int) -> onnx.ModelProto:
    """Replace the placeholders in a model that onnxruntime has optimised.

    Raises:
        UnsupportedLayerError: a gate is not in the blocked layout.
    """
    generator = np.random.default_rng(seed)
    gate: dict[str, Any] = {"units": rule.units, "winner": int(rule.temperature is None), "scale": rule.scale}
    repeat: dict[str, Any] = {"units": draws, "winner": 0, "scale": 0.0}
    filters = {tensor.name: list(tensor.dims) for tensor in optimised.graph.initializer}
    blocked: set[str] = set()
    nodes: list[onnx.NodeProto] = []

    def replacement(operator: str, inputs: list[str], output: str) -> onnx.NodeProto:
        attributes = repeat if operator == "Repeat" else gate
        seed = int(generator.integers(2**62))
        return helper.make_node(operator, inputs, [output], domain=DOMAIN, seed=seed, **attributes)

    for node in optimised.graph.node:
        if (node.domain == BLOCKED and node.op_type != "ReorderOutput") or (
            node.op_type in SAME_LAYOUT and node.input[0] in blocked
        ):
            blocked.add(node.output[0])
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        kind = attributes["activation"].decode() if "activation" in attributes else node.op_type
        if kind not in (GATE, REPEAT):
            nodes.append(node)
            continue
        if kind == GATE and node.output[0] not in blocked:
            raise UnsupportedLayerError("a gate must be in onnxruntime's blocked layout, but one is not")
        operator = "Gate" if kind == GATE else "Repeat"
        batch_norm = attributes.get("group", 1) > 1 and filters[node.input[1]][1:] == [1, 1, 1]
        if node.op_type == kind:
            nodes.append(replacement(operator, [node.input[0]], node.output[0]))
        elif kind == GATE and batch_norm:
            nodes.append(replacement("NormGate", list(node.input[:3]), node.output[0]))
        else:
            output, node.output[0] = node.output[0], f"{node.output[0]}_before"
            kept = [attribute for attribute in node.attribute if attribute.name != "activation"]
            del node.attribute[:]
            node.attribute.extend(kept)
            nodes.append(node)
            nodes.append(replacement(operator, [node.output[0]], output))
    del optimised.graph.node[:]
    optimised.graph.node.extend(nodes)
    del optimised.graph.value_info[:]
    optimised.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return optimised
