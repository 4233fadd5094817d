"""Datasets as uint8 arrays: read, checked and split before the first trial, then the same for every trial.

    catalogue   the names, their conventions (epsilon, augmentation), and the way from a name to a `Dataset`
    dataset     what a `Dataset` and a `Split` are
    published   Fashion-MNIST, CIFAR and SVHN: their files, their download, their formats
    arrays      FILE.npz, and the rules that the arrays of every dataset keep
    stratify    fixed choices of images that keep the shares of the classes
    augment     images to float tensors; random crops and flips on the device

The held-out validation images come from the training images alone; the test images take no part in a search.
"""

from .augment import augment, to_tensor
from .catalogue import DATASETS, load, of_settings
from .dataset import Dataset, Split

__all__ = ["DATASETS", "Dataset", "Split", "augment", "load", "of_settings", "to_tensor"]
