"""Small networks for the tests of `models`."""

from networks import images, make, recipe

__all__ = ["images", "make", "recipe"]
