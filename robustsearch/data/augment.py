"""Images to float tensors, and the standard augmentation, on the device and on whole batches."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def to_tensor(images: NDArray[np.uint8] | Tensor, device: torch.device | str) -> Tensor:
    """Images uint8 `[N, H, W, C]` as float `[N, C, H, W]` in [0, 1] on the device, channels-last in memory.

    The bytes travel, not the floats. Arrays are copied, so read-only views are welcome.
    """
    pixels = images.to(device) if isinstance(images, Tensor) else torch.tensor(images, device=device)
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def augment(images: Tensor, *, crop_padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Crop each image of `[N, C, H, W]` at random after zero padding, and mirror it with probability 1/2.

    Every image has its own offsets, uniform on {0, ..., 2 crop_padding} in each direction. The generator
    lives on the device of the images; without padding and flip it is not used and the images come back as
    they are.
    """
    if not crop_padding and not flip:
        return images
    count, _, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(count, -1)
    columns = torch.arange(width, device=device).expand(count, -1)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if crop_padding:
        images = F.pad(images, [crop_padding] * 4)
        offsets = torch.randint(2 * crop_padding + 1, (2, count, 1), generator=generator, device=device)
        rows, columns = rows + offsets[0], columns + offsets[1]
    batch = torch.arange(count, device=device)[:, None, None]
    return images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
