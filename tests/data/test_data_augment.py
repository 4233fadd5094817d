"""Images to tensors, and the law of the augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.stats
import torch
from numpy.typing import NDArray

from robustsearch.data import augment, to_tensor


def test_to_tensor_is_the_array_over_255() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    images[0, 0, 0] = (0, 1, 255)
    images.flags.writeable = False  # as a node's shared memory gives it; a warning would be an error
    expected = np.moveaxis(images, 3, 1).astype(np.float32) / np.float32(255)
    for source in (images, torch.tensor(images)):
        tensor = to_tensor(source, "cpu")
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), expected)
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert (tensor.min(), tensor.max()) == (0, 1)


def test_to_tensor_leaves_its_source_alone() -> None:
    images = np.full((2, 8, 8, 1), 255, dtype=np.uint8)
    pixels = torch.tensor(images)
    for source in (images, pixels):
        to_tensor(source, torch.device("cpu")).zero_()
        assert np.asarray(source).min() == 255


def coded_images(count: int, height: int, width: int) -> torch.Tensor:
    """Images `[N, 2, H, W]` in which each pixel is another positive number: 1, 2, ... and 1001, 1002, ..."""
    plane = torch.arange(1, height * width + 1, dtype=torch.float32).reshape(height, width)
    return torch.stack([plane, plane + 1000]).expand(count, -1, -1, -1).clone()


def slow_crop(image: NDArray[Any], top: int, left: int, mirrored: bool, padding: int) -> NDArray[Any]:
    """One image `[C, H, W]` padded, cropped at an offset and mirrored, pixel by pixel."""
    channels, height, width = image.shape
    out = np.zeros_like(image)
    for c, i, j in np.ndindex(channels, height, width):
        row, column = i + top - padding, (width - 1 - j if mirrored else j) + left - padding
        if 0 <= row < height and 0 <= column < width:
            out[c, i, j] = image[c, row, column]
    return out


def decode(augmented: torch.Tensor, padding: int) -> NDArray[np.int64]:
    """Offsets and flip `[N, 3]` that made each of the augmented `coded_images`, from its middle pixels."""
    first = augmented[:, 0].numpy().astype(int)
    _, height, width = first.shape
    i, j = height // 2, width // 2 - 1
    here, next_ = first[:, i, j] - 1, first[:, i, j + 1] - 1
    mirrored = next_ < here
    top = here // width - i + padding
    left = here % width - np.where(mirrored, width - 1 - j, j) + padding
    return np.stack([top, left, mirrored], axis=1)


@pytest.mark.parametrize(("padding", "flip"), [(2, True), (2, False), (0, True), (1, True)])
def test_augmented_images_are_crops_of_the_padded_ones(padding: int, flip: bool) -> None:
    images = coded_images(60, 7, 8)
    generator = torch.Generator().manual_seed(0)
    augmented = augment(images, crop_padding=padding, flip=flip, generator=generator)
    assert augmented.shape == images.shape
    made = decode(augmented, padding)
    assert len({tuple(row) for row in made.tolist()}) > 1, "every image must have a draw of its own"
    for image, result, (top, left, mirrored) in zip(images.numpy(), augmented.numpy(), made, strict=True):
        assert 0 <= top <= 2 * padding
        assert 0 <= left <= 2 * padding
        assert flip or not mirrored
        np.testing.assert_array_equal(result, slow_crop(image, top, left, bool(mirrored), padding))


def test_offsets_and_flips_are_uniform_and_independent() -> None:
    """Joint chi-square over 5 x 5 offsets and 2 flips, 50 cells, 10,000 images, level 0.001."""
    images = coded_images(10_000, 6, 6)
    generator = torch.Generator().manual_seed(1)
    made = decode(augment(images, crop_padding=2, flip=True, generator=generator), padding=2)
    cells = np.bincount(made @ np.array([10, 2, 1]), minlength=50)
    assert len(cells) == 50
    assert scipy.stats.chisquare(cells).pvalue > 1e-3


def test_without_padding_and_flip_images_come_back_and_the_generator_rests() -> None:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(2)
    state = generator.get_state()
    assert torch.equal(augment(images, crop_padding=0, flip=False, generator=generator), images)
    assert torch.equal(generator.get_state(), state)


def test_augmentation_draws_from_its_generator_alone() -> None:
    images = coded_images(32, 8, 8)
    results = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        generator = torch.Generator().manual_seed(3)
        results += [augment(images, crop_padding=4, flip=True, generator=generator) for _ in range(2)]
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])
    assert not torch.equal(results[0], results[1])
    assert torch.equal(images, coded_images(32, 8, 8)), "the source must stay as it was"


def test_augmentation_keeps_channels_last() -> None:
    images = to_tensor(np.zeros((4, 8, 8, 3), dtype=np.uint8), "cpu")
    augmented = augment(images, crop_padding=1, flip=True, generator=torch.Generator().manual_seed(0))
    assert augmented.is_contiguous(memory_format=torch.channels_last)
