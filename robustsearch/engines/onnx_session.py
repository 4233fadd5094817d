"""An ONNX model in onnxruntime on the CPU, as something to call with torch tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor

from .graph import INPUT

ERROR = 3
"""onnxruntime's severity: what is below it is not logged."""


def options(libraries: list[Path]) -> onnxruntime.SessionOptions:
    """Options of a session with as many threads as torch has, and with these libraries of operators."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = ERROR
    for library in libraries:
        options.register_custom_ops_library(str(library))
    return options


def session(model: onnx.ModelProto, options: onnxruntime.SessionOptions) -> Callable[[Tensor], Tensor]:
    """Images `[N, C, H, W]` -> probabilities `[N, classes]`, both on the CPU."""
    loaded = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def predict(images: Tensor) -> Tensor:
        (probabilities,) = loaded.run(None, {INPUT: images.numpy()})
        return torch.from_numpy(probabilities)

    return predict
