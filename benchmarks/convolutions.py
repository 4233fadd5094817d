"""Our convolutions beside torch's: `python -m benchmarks.convolutions [--batch 128] [--rounds 21]`.

The 3x3 convolutions of WRN-34-w on images of 8x8 and 32x32 with their gradients, in channels-last float32 on one
thread, one contender after the other in each round. Prints a Markdown table: medians of CPU milliseconds of torch's
(oneDNN's) and of ours with quartiles, the ratio of each round with its 95% interval, and the largest error of both, in
units of the largest value.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustsearch.models.convolution import Conv2d
from robustsearch.models.kernels import convolves_faster, usable

from .plain import torchs
from .timing import in_turn, machine, ratio, spread

Passes = dict[str, Callable[[], Tensor]]


def layers(widths: list[int]) -> Iterator[tuple[int, int, int, int]]:
    """Channels in and out, side of the map, and stride."""
    for side in (8, 32):
        for width in widths:
            for stage in range(3):
                channels, pixels = 16 * width * 2**stage, side // 2**stage
                yield channels, channels, pixels, 1
                if stage < 2:
                    yield channels, 2 * channels, pixels, 2


def passes(layer: nn.Conv2d, x: Tensor, g: Tensor) -> Passes:
    """Forward, and the gradients in input and filters alone, each of one call."""
    learning, weight = x.clone().requires_grad_(), layer.weight
    to_input = layer._conv_forward(learning, weight.detach(), None)
    to_filters = layer._conv_forward(x, weight, None)
    return {
        "forward": lambda: layer._conv_forward(x, weight.detach(), None),
        "gradient in the input": lambda: torch.autograd.grad(to_input, learning, g, retain_graph=True)[0],
        "gradient in the filters": lambda: torch.autograd.grad(to_filters, weight, g, retain_graph=True)[0],
    }


def error(found: Tensor, exact: Tensor) -> float:
    """The largest, in units of the largest value."""
    return float((found - exact).abs().max() / exact.abs().max())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=21, metavar="N")
    parser.add_argument("--widths", type=int, nargs="+", default=[1], metavar="W")
    given = parser.parse_args()
    torch.set_num_threads(1)
    assert usable(torch.zeros(1)), "it needs a C compiler"
    assert convolves_faster(), "it needs a processor with AVX2 and without AVX-512"
    print(f"{machine(1)}; batch {given.batch}, n = {given.rounds} rounds\n")
    columns = ("channels", "map", "stride", "pass", "torch, CPU ms", "ours, CPU ms", "torch to ours", "errors")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for channels, out, pixels, stride in layers(given.widths):
        torch.manual_seed(0)
        ours = Conv2d(channels, out, 3, stride=stride, padding=1, bias=False).to(memory_format=torch.channels_last)
        theirs = torchs(ours).to(memory_format=torch.channels_last)
        x = torch.randn(given.batch, channels, pixels, pixels).to(memory_format=torch.channels_last)
        g = torch.randn_like(F.conv2d(x, ours.weight, stride=stride, padding=1))
        mine, other = passes(ours, x, g), passes(theirs, x, g)
        exact = passes(copy.deepcopy(theirs).double(), x.double(), g.double())
        for name, run in mine.items():
            truth = exact[name]()
            errors = f"{error(other[name](), truth):.0e}, {error(run(), truth):.0e}"
            times = in_turn({"torch": other[name], "ours": run}, given.rounds)
            print(
                f"| {channels} to {out} | {pixels}x{pixels} | {stride} | {name} | {spread(1000 * times['torch'], 2)} "
                f"| {spread(1000 * times['ours'], 2)} | {ratio(times['torch'], times['ours'])} | {errors} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
