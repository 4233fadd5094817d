"""An ONNX model in onnxruntime on the CPU, as something to call with torch tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor

from .onnx_model import INPUT

ERROR = 3
"""onnxruntime's severity: what is below it is not logged."""


def session(model: onnx.ModelProto, device: torch.device, operators: Path | None = None) -> Callable[[Tensor], Tensor]:
    """Images `[N, C, H, W]` -> probabilities `[N, classes]`, both on the CPU, with as many threads as torch has.

    Args:
        model: What to run.
        device: Where the network is that it comes from; must be the CPU.
        operators: Library of operators of its own; such a model is not optimised any further.

    Raises:
        ValueError: the device is another.
    """
    if device.type != "cpu":
        raise ValueError(f"onnxruntime needs a network on the CPU, but it is on {device}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = ERROR
    if operators:
        options.register_custom_ops_library(str(operators))
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    loaded = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def predict(images: Tensor) -> Tensor:
        (probabilities,) = loaded.run(None, {INPUT: images.numpy()})
        return torch.from_numpy(probabilities)

    return predict
