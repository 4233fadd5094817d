"""What the IBP prior saves: `python -m benchmarks.ibp_pruning`.

Trains WRN-34-4 with LWTA-2 and mean gates adversarially on digits, with the prior and without it, and prints a Markdown
table. Accuracies are those of protocol `standard` on validation images with Wilson's 95% interval; p50 is that of the
deployed network at batch 1, beside that of the same network deployed with its removed blocks still in it, weighed by 0;
the last column is the largest difference between the logits of the pruned network and of the masked one it comes from.
"""

from __future__ import annotations

import argparse
import copy
import platform
from importlib.metadata import version

import torch

from robustsearch import data
from robustsearch.data import Dataset
from robustsearch.engines.prepare import prepare
from robustsearch.evaluation.protocols import protocol
from robustsearch.latency import Latency, device_name, measure
from robustsearch.models.build import Network
from robustsearch.models.deploy import Deployed, deploy
from robustsearch.models.ibp import BlockPrior
from robustsearch.recipe import IBP, LWTA, Attack, Mix, Model, Recipe, Training
from robustsearch.trial import Plan, Row, Trial

CPU = torch.device("cpu")


def recipe(model: Model, ibp: IBP | None, epochs: int, epsilon: float) -> Recipe:
    """The recipe that both columns share but for the prior: 88% PGD-3 at 1.5 times the evaluation's epsilon."""
    return Recipe(
        model=model,
        lwta=LWTA(gate="mean", ibp=ibp),
        mix=Mix(clean=0.12, noise=0.0, fgsm=0.0, pgd=0.88, cw=0.0),
        attack=Attack(epsilon=1.5 * epsilon, step=epsilon, steps=3, warmup=0.25),
        training=Training(epochs=epochs),
    )


def trained(recipe: Recipe, seed: int, dataset: Dataset) -> tuple[Network, Row]:
    """The network after its last epoch, in evaluation mode, and its row of results."""
    plan = Plan((), protocol("standard"), dataset.epsilon, dataset.epsilon_l2)
    trial = Trial(recipe, seed, dataset, plan, CPU)
    while not trial.done:
        trial.advance()
    trial.close()
    return trial.network.eval(), trial.rows[-1]


def unpruned(network: Network) -> Network:
    """A copy that removes no block at deployment: those below the cut-off have the weight 0 instead."""
    network = copy.deepcopy(network)
    for prior in network.modules():
        if isinstance(prior, BlockPrior):
            prior.t.data[~prior.kept()] = -torch.inf
            prior.cutoff = 0.0
    return network


@torch.inference_mode()
def logit_difference(network: Network, dataset: Dataset) -> float:
    """Largest difference on the test images between the deployed and the masked network; gates must be `mean`."""
    images = data.to_tensor(dataset.test.images, CPU)
    deployed = deploy(network, 1)
    assert isinstance(deployed, Deployed)
    return float((deployed.layers(images) - network(images)).abs().max())


def timed(first: Network, second: Network, dataset: Dataset) -> tuple[Latency, Latency]:
    """Latencies of two networks, deployed, timed in turn three times; the least disturbed of each."""
    forms = [prepare(deploy(network, 1), dataset.shape, CPU) for network in (first, second)]
    rounds = [[measure(form, dataset.shape, CPU) for form in forms] for _ in range(3)]
    one, other = (min(times, key=lambda latency: latency.latency_p50) for times in zip(*rounds, strict=True))
    return one, other


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=34, help="layers")
    parser.add_argument("--widen-factor", type=int, default=4, help="w")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each row, seeds 0, 1, ...")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = data.load("digits")
    model = Model(depth=arguments.depth, widen_factor=arguments.widen_factor)
    packages = ", ".join(f"{name} {version(name)}" for name in ("robustsearch", "torch"))
    print(
        f"{packages}, Python {platform.python_version()}; {device_name(CPU)}, 1 thread; WRN-{model.depth}-"
        f"{model.widen_factor}, digits, {arguments.epochs} epochs, epsilon {dataset.epsilon}, {IBP()!r}\n"
    )
    print(
        "| prior | seed | blocks kept % | natural % | robust % (n) | parameters | MACs | p50 ms | p50 ms unpruned "
        "| logits differ by |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for seed in range(arguments.seeds):
        for ibp in (IBP(), None):
            network, row = trained(recipe(model, ibp, arguments.epochs, dataset.epsilon), seed, dataset)
            kept = network.blocks_kept()
            natural, robust, low, high = (
                100 * row[name] for name in ("natural", "robust", "robust_low", "robust_high")
            )
            whole, pruned = timed(unpruned(network), network, dataset)
            print(
                f"| {'IBP' if ibp else 'none'} | {seed} | {100.0 if kept is None else 100 * kept:.1f} | {natural:.1f} "
                f"| {robust:.1f} [{low:.1f}, {high:.1f}] ({row['n']}) | {pruned.parameters} of {whole.parameters} "
                f"| {pruned.macs / 1e6:.1f} M of {whole.macs / 1e6:.1f} M | {pruned.latency_p50:.2f} "
                f"| {whole.latency_p50:.2f} | {logit_difference(network, dataset):.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
