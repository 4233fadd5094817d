"""The training objective, as named terms that sum to what is minimised (METHODS 2, 3, 4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.build import Network


def objective_terms(
    network: Network,
    clean: Tensor,
    perturbed: Tensor | None,
    labels: Tensor,
    *,
    clean_weight: float,
    kl_weight: float,
    n_train: int,
) -> dict[str, Tensor]:
    """Scalar terms of the negative ELBO of one batch; their sum is minimised.

    - `ce`: (1 - clean_weight) * CE of the perturbed images, or CE of the clean ones where none is given.
    - `clean_ce`: clean_weight * CE of the clean images (PNI: 0.5, He et al. 2019, eq. 7), where both are present.
    - `kl_gate`, `kl_sticks`, `kl_z`: kl_weight * KL / n_train, each once, where the network has them.

    Images are `[N, C, H, W]` in [0, 1], labels `[N]`; runs the network in its present (training) mode.
    """
    both = perturbed is not None and clean_weight > 0
    batch = clean if perturbed is None else torch.cat([perturbed, clean]) if both else perturbed
    logits = network(batch)
    terms: dict[str, Tensor] = {}
    if both:
        on_perturbed, on_clean = logits.split(len(labels))
        terms["ce"] = (1 - clean_weight) * F.cross_entropy(on_perturbed, labels)
        terms["clean_ce"] = clean_weight * F.cross_entropy(on_clean, labels)
    else:
        terms["ce"] = F.cross_entropy(logits, labels)
    for name, value in network.kl().items():
        terms[f"kl_{name}"] = kl_weight * value / n_train
    return terms
