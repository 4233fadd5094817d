"""Small networks for the tests of `engines`, and the engines to test."""

from __future__ import annotations

import pytest
from networks import images, make, recipe

from robustsearch.engines import kernel
from robustsearch.engines.graph import UnsupportedLayerError

__all__ = ["engine", "images", "make", "recipe"]


@pytest.fixture(params=["onnxruntime", "onnxruntime-kernel"])
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine with a graph of its own; the kernel's only where it can be compiled."""
    name: str = request.param
    if name == "onnxruntime-kernel":
        try:
            kernel.library()
        except UnsupportedLayerError as error:
            pytest.skip(str(error))
    return name
