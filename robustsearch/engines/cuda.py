"""A module as CUDA graphs, one for each batch size: no dispatch from Python. Not yet run on a GPU; see `prepare`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..models.stochastic import stochastic_layers

WARM_UP = 3


def graphed(module: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """`module` captured when a batch size is first seen, replayed afterwards.

    The generators of its noise are registered with each graph, so that a replay draws anew.
    """
    captured: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
    sources = {id(layer.noise): layer.noise for layer in stochastic_layers(module)}

    def capture(images: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        placeholder = images.clone()
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                module(placeholder)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        for source in sources.values():
            graph.register_generator_state(source.generator(device))
        with torch.cuda.graph(graph):
            output = module(placeholder)
        return graph, placeholder, output

    def predict(images: Tensor) -> Tensor:
        if images.shape not in captured:
            captured[images.shape] = capture(images)
        graph, placeholder, output = captured[images.shape]
        placeholder.copy_(images)
        graph.replay()
        return output.clone()

    return predict
