"""What runs a deployed network: eager torch, compiled torch, CUDA graphs, or onnxruntime with its gates in the graph.

prepare   a deployed module and the name of an engine in, something to call out, checked against the module
graph     an ONNX graph under construction; each kind of layer has one function, in `layers` or `draws`
kernel    a gate as one pass over memory, compiled where there is a C compiler
"""

from __future__ import annotations

from ..errors import UserError

ENGINES = ("auto", "eager", "compile", "cudagraph", "onnxruntime", "onnxruntime-kernel")


def check_engine(name: str) -> None:
    """Raise UserError unless `name` is one of `ENGINES`."""
    if name not in ENGINES:
        raise UserError(f"the engine must be one of {', '.join(ENGINES)}, but got {name!r}")
