"""Gaussian noise on the input; at inference it is randomised smoothing (Cohen et al. 2019, 1902.02918)."""

from __future__ import annotations

from torch import Tensor

from .stochastic import Noise, Stochastic


class GaussianNoise(Stochastic):
    """x + sigma * N(0, 1) on images `[N, C, H, W]` in pixel units of [0, 1], before normalisation.

    The sum is not clipped to [0, 1]: clipping would bend the Gaussian that smoothing is about.
    """

    def __init__(self, sigma: float, at_inference: bool, noise: Noise) -> None:
        """Noise of standard deviation `sigma`, in pixel units; in training only, unless `at_inference`."""
        super().__init__()
        self.sigma, self.at_inference, self.noise = sigma, at_inference, noise

    @property
    def random(self) -> bool:
        """Whether the noise is on in evaluation."""
        return self.at_inference and self.mode != "mean"

    def forward(self, images: Tensor) -> Tensor:
        """Noisy images; the images themselves where the noise is off."""
        if self.mode == "mean" or not (self.training or self.at_inference):
            return images
        return (images + self.sigma * self.noise.normal(images.shape, images)).to(images.dtype)

    def extra_repr(self) -> str:
        """Sigma, and whether it holds at inference."""
        return f"sigma={self.sigma}, at_inference={self.at_inference}"
