"""`python -m robustsearch.audit`: whether a classifier's robust accuracy is real, or its gradients are masked."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli import Parser
from .errors import UserError

if TYPE_CHECKING:
    from .evaluation.masking import Verdict

DESCRIPTION = """\
Attack a classifier of [0, 1] images in every way there is, and check the scores
against each other: does its robust accuracy hold, or are its gradients masked?"""

EPILOG = """\
FACTORY() returns an nn.Module, from images [N, C, H, W] in [0, 1] to logits [N, classes];
MODULE is found from the current directory. Where the plain gradient misleads, a method
`surrogate()` of the module may return a context manager under which it is smooth.
Without one the audit also tries: temperatures (attributes `temperature`, `tau`) of 1,
and the identity in place of layers that round; random classifiers are always attacked
through the mean of several draws.

example:
  python -m robustsearch.audit --model mynet:build --weights mynet.pt --dataset cifar10"""

MIN_IMAGES = 20

WIDTH = 120
"""Characters of a line where there is no terminal: each check then takes one."""

COLOURS = ("#D55E00", "#0072B2")
"""Two of Okabe & Ito (2008), Color Universal Design."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = Parser(
        "python -m robustsearch.audit",
        usage="python -m robustsearch.audit --model MODULE:FACTORY --dataset NAME [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add = root.add_argument
    add("--model", metavar="MODULE:FACTORY", required=True, help="what makes the classifier")
    add("--weights", metavar="FILE", type=Path, help="its state dict, as torch.save wrote it")
    add("--dataset", metavar="NAME", required=True, help="digits, fashion-mnist, cifar10, cifar100, svhn, FILE.npz")
    add("--data-dir", metavar="DIR", type=Path, default=Path("data"), help="where the dataset's files are (data)")
    add("--epsilon", metavar="E", type=float, help="l_inf radius, pixel units of [0, 1] (the dataset's)")
    add("--images", metavar="N", type=int, default=200, help="test images to attack (200)")
    add("--claimed", metavar="A", type=float, help="robust accuracy to check, in [0, 1]")
    add("--seed", metavar="S", type=int, default=0, help="seed of the attacks (0)")
    add("--json", metavar="FILE", type=Path, help="write the verdict there")
    add("--figure", metavar="FILE.png", type=Path, help="draw accuracy against epsilon there")
    return root


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 whatever the verdict, 2 bad input, 130 interrupted."""
    given = parser().parse_args(arguments)
    try:
        _check(given)
        return _audit(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def _check(given: argparse.Namespace) -> None:
    if given.epsilon is not None and not 0 < given.epsilon <= 1:
        raise UserError(f"`--epsilon` must be in (0, 1], but got {given.epsilon:g}")
    if given.images < MIN_IMAGES:
        raise UserError(f"`--images` must be at least {MIN_IMAGES}, but got {given.images}")
    if given.claimed is not None and not 0 <= given.claimed <= 1:
        raise UserError(f"`--claimed` must be in [0, 1], but got {given.claimed:g}")
    if given.figure is not None and given.figure.suffix != ".png":
        raise UserError(f"`--figure` must end in .png, but got {str(given.figure)!r}")
    for option, path in (("--json", given.json), ("--figure", given.figure)):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"`{option}` must be in a folder that exists, but got {str(path)!r}")


def _audit(given: argparse.Namespace) -> int:
    import torch

    from . import data
    from .evaluation.intervals import wilson
    from .evaluation.masking import accuracy_curves, masking_checks
    from .evaluation.surrogates import declared_surrogate, standard_surrogates
    from .models.foreign import check_logits, load_model

    model = load_model(given.model, given.weights)
    dataset = data.load(given.dataset, data_dir=given.data_dir)
    epsilon = given.epsilon or dataset.epsilon
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    test = dataset.test
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(given.seed)).numpy()
    test = test.take(order[: given.images])
    images = data.to_tensor(test.images, device)
    labels = torch.from_numpy(test.labels).to(device)
    check_logits(model, images[:2], dataset.classes)
    surrogate = declared_surrogate(model)
    others = {} if surrogate else standard_surrogates(model, images[:20])
    settings: dict[str, Any] = {"epsilon": epsilon, "surrogate": surrogate, "others": others, "seed": given.seed}
    verdict = masking_checks(model, images, labels, claimed=given.claimed, **settings)
    interval = wilson(verdict.robust_accuracy, len(labels))
    show(verdict, interval, dataset.name, epsilon)
    if given.json:
        given.json.write_text(
            json.dumps(report(verdict, interval, n=len(labels), epsilon=epsilon, seed=given.seed), indent=2) + "\n"
        )
    if given.figure:
        curves = accuracy_curves(model, images, labels, **settings)
        draw(given.figure, curves, verdict, interval, epsilon, f"{given.model}, {len(labels)} images of {dataset.name}")
    return 0


# What is said of it


def report(verdict: Verdict, interval: tuple[float, float], *, n: int, epsilon: float, seed: int) -> dict[str, Any]:
    """The verdict as JSON."""
    from importlib.metadata import version

    return {
        "masked": verdict.masked,
        "naive_accuracy": verdict.naive_accuracy,
        "robust_accuracy": verdict.robust_accuracy,
        "interval": list(interval),
        "n": n,
        "epsilon": epsilon,
        "seed": seed,
        "checks": [asdict(check) for check in verdict.checks],
        "versions": {
            "robustsearch": version("robustsearch"),
            "torch": version("torch"),
            "python": ".".join(map(str, sys.version_info[:3])),
        },
    }


def sentence(verdict: Verdict, interval: tuple[float, float]) -> str:
    """What holds, what does not, and why, in one sentence."""
    low, high = interval
    withstood = f"{verdict.robust_accuracy:.1%} of the images (95% interval {low:.1%} to {high:.1%})"
    if not verdict.masked:
        return f"The accuracy holds: {withstood} withstood every attack, and no check found a masked gradient."
    rules = "; ".join(f"{check.reason} ({check.name})" for check in verdict.failed)
    naive = f"the naive {verdict.naive_accuracy:.1%} does not hold: "
    return (
        f"Masked: {naive if verdict.naive_accuracy > verdict.robust_accuracy else ''}at most {withstood} withstand "
        f"attack, and a better one may break more. Rules that the classifier breaks: {rules}."
    )


def show(verdict: Verdict, interval: tuple[float, float], dataset: str, epsilon: float) -> None:
    """Print accuracies, checks and the sentence."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    table = Table(box=box.SIMPLE_HEAD, title=f"{dataset}, l_inf epsilon {epsilon:.4g}", title_justify="left")
    table.add_column("check")
    table.add_column("value", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("", no_wrap=True)
    table.add_column("reason")
    for check in verdict.checks:
        mark = "MASKED" if not check.passed else "" if check.threshold is None or check.value is None else "ok"
        table.add_row(check.name, _number(check.value), _number(check.threshold), mark, check.reason)
    console.print(table)
    console.print(
        f"natural {verdict.natural_accuracy:.1%}, naive {verdict.naive_accuracy:.1%}, "
        f"robust {verdict.robust_accuracy:.1%}\n{sentence(verdict, interval)}",
        soft_wrap=True,
        markup=False,
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def draw(
    path: Path,
    curves: dict[str, dict[float, float]],
    verdict: Verdict,
    interval: tuple[float, float],
    epsilon: float,
    title: str,
) -> None:
    """Accuracy against epsilon, a line for each kind of attack, and the robust accuracy with its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for (name, curve), colour, style in zip(curves.items(), COLOURS, ("--", "-"), strict=True):
        axes.plot(list(curve), list(curve.values()), style, marker="o", color=colour, label=f"{name} attack")
    low, high = interval
    robust = verdict.robust_accuracy
    axes.errorbar(
        [epsilon], [robust], yerr=[[robust - low], [high - robust]], fmt="s", color="black", capsize=3,
        label="worst of all, 95% interval",
    )  # fmt: skip
    axes.set(xlabel="l_inf epsilon, pixel units of [0, 1]", ylabel="accuracy", ylim=(-0.02, 1.02))
    axes.set_title(f"{title}: {'masked' if verdict.masked else 'not masked'}", loc="left", fontsize="medium")
    axes.legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
