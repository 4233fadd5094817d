"""The training objective, as named terms that sum to what is minimised (docs/methods.md)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..attacks.objectives import divergence_from
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
    trades: float | None = None,
) -> dict[str, Tensor]:
    """Scalar terms of the negative ELBO of one batch; their sum is minimised.

    - those of `data_terms`;
    - `kl_gate`, `kl_sticks`, `kl_z`: kl_weight * KL / n_train, each once, where the network has them.
    """
    terms = data_terms(network, clean, perturbed, labels, clean_weight=clean_weight, trades=trades)
    for name, value in network.kl().items():
        terms[f"kl_{name}"] = kl_weight * value / n_train
    return terms


def data_terms(
    network: Network,
    clean: Tensor,
    perturbed: Tensor | None,
    labels: Tensor,
    *,
    clean_weight: float,
    trades: float | None,
) -> dict[str, Tensor]:
    """What the images say: scalar terms of one batch, in nats.

    - `ce`: (1 - clean_weight) * CE of the perturbed images, or CE of the clean ones where none is given.
    - `clean_ce`: clean_weight * CE of the clean images (PNI: 0.5, He et al. 2019, eq. 7), where both are present.

    With `trades`, where both are present, instead (Zhang et al. 2019, 1901.08573, eq. 5):

    - `clean_ce`: CE of the clean images.
    - `trades`: trades * KL(p(x) || p(x')), with a gradient through both predictions.

    Clean and perturbed images share a batch, and so its batch-norm statistics. Not so with TRADES: as in its published
    code each has a forward pass of its own, which for a random network is a draw of its own. (That code predicts the
    clean images twice, to no effect but a third move of the running statistics; here they are predicted once.)

    Images are `[N, C, H, W]` in [0, 1], labels `[N]`; runs the network in its present (training) mode.
    """
    if perturbed is None:
        return {"ce": F.cross_entropy(network(clean), labels)}
    if trades is not None:
        on_clean = network(clean)
        divergence = divergence_from(on_clean)(network(perturbed), labels).mean()
        return {"clean_ce": F.cross_entropy(on_clean, labels), "trades": trades * divergence}
    if not clean_weight:
        return {"ce": F.cross_entropy(network(perturbed), labels)}
    on_perturbed, on_clean = network(torch.cat([perturbed, clean])).split(len(labels))
    return {
        "ce": (1 - clean_weight) * F.cross_entropy(on_perturbed, labels),
        "clean_ce": clean_weight * F.cross_entropy(on_clean, labels),
    }
