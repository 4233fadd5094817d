"""Workers with nothing of this project, to compare with (`benchmarks.memory`): `python -m benchmarks.bare KIND`.

Each of them trains a WideResNet (Zagoruyko & Komodakis 2016, 1605.07146) by SGD in plain torch, on images that it makes
up itself. KIND is one of `KINDS`.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KINDS = {
    "idle": "actors of Ray with torch, which wait",
    "actor": "actors of Ray that train in plain torch",
    "tune": "trainables of Ray Tune that train in plain torch",
}
TURN = 5.0
"""Seconds of a step of the trainable."""


class Block(nn.Module):
    """A pre-activation residual block: `[N, channels_in, H, W]` -> `[N, channels_out, H / stride, W / stride]`."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = None if same else nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        entered = F.relu(self.bn1(x))
        branch: Tensor = self.conv2(F.relu(self.bn2(self.conv1(entered))))
        return branch + (x if self.shortcut is None else self.shortcut(entered))


def wide_resnet(depth: int, channels: int, classes: int) -> nn.Sequential:
    """WRN-depth-1: images `[N, channels, H, W]` to logits `[N, classes]`."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
    width = 16
    for stage in range(3):
        for index in range((depth - 4) // 6):
            layers.append(Block(width, 16 * 2**stage, 2 if stage and not index else 1))
            width = 16 * 2**stage
    head = [nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    return nn.Sequential(*layers, *head)


class Training:
    """A network in training on random images of CIFAR's shape."""

    def __init__(self, depth: int, batch: int, images: int) -> None:
        torch.set_num_threads(1)
        self.network = wide_resnet(depth, 3, 2).to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9, nesterov=True)
        self.images = torch.randint(256, (images, 32, 32, 3), dtype=torch.uint8)
        self.labels = torch.arange(images) % 2
        self.batch = batch

    def run(self, seconds: float) -> None:
        """Steps for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            chosen = torch.randint(len(self.labels), (self.batch,))
            images = self.images[chosen].permute(0, 3, 1, 2).float().div_(255)
            loss = F.cross_entropy(self.network(images), self.labels[chosen])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()


class Bare:
    """What an actor runs."""

    def run(self, seconds: float, *training: int) -> None:
        """Train for so long, or wait where it is not said what to train."""
        if training:
            Training(*training).run(seconds)
        else:
            time.sleep(seconds)


def tune_run(workers: int, seconds: float, *training: int) -> None:
    """Trainables of Ray Tune at the same work."""
    from ray import tune

    class BareTrainable(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self.training = Training(*training)

        def step(self) -> dict[str, Any]:
            self.training.run(TURN)
            return {"loss": 0.0}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            pass

        def load_checkpoint(self, checkpoint: Any) -> None:
            pass

    tune.Tuner(
        tune.with_resources(BareTrainable, {"CPU": 1}),
        tune_config=tune.TuneConfig(num_samples=workers),
        run_config=tune.RunConfig(stop={"training_iteration": round(seconds / TURN)}, verbose=0),
    ).fit()


def main() -> None:
    """Run so many of them beside each other."""
    import ray

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS, metavar="KIND")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--depth", type=int, default=10, help="layers, 6n + 4")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=325, help="images that each makes up; 3,072 bytes each")
    given = parser.parse_args()
    training = (given.depth, given.batch, given.images)
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    if given.kind == "tune":
        tune_run(given.workers, given.seconds, *training)
    else:
        actors = [ray.remote(num_cpus=1)(Bare).remote() for _ in range(given.workers)]
        ray.get([actor.run.remote(given.seconds, *(training if given.kind == "actor" else ())) for actor in actors])
    ray.shutdown()


if __name__ == "__main__":
    main()
