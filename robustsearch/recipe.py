"""The recipe: everything that decides how one trial is built, trained and deployed.

A recipe is frozen and validated, holds plain numbers and strings only, and is the only configuration that crosses a
process border. Its digest names it: two recipes with the same digest are the same experiment.

An optional part that is `None` is off, so that no recipe carries a setting without effect:

    Recipe
    ├── model        WideResNet-(6n+4)-w
    ├── lwta         stochastic local winner-takes-all instead of ReLU ── ibp   Indian buffet process prior over blocks
    ├── pni          parametric noise injection
    ├── smoothing    Gaussian noise on the input
    ├── mix          which attack a training batch meets
    ├── attack       how strong the training attacks are
    ├── training     optimiser, schedule, loss weights; TRADES, weight perturbation, early stopping
    └── draws        predictions averaged per image
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import Field, ValidationError, model_validator

from .errors import RecipeError
from .fields import Section, explained, flat, leaves

Activation = Literal["relu", "lwta"]
GateMode = str
"""A name in `GATES`."""
Norm = Literal["linf", "l2"]
MixName = Literal["clean", "noise", "fgsm", "pgd", "cw", "fgsm_rs"]
MIX_NAMES: tuple[MixName, ...] = get_args(MixName)


class Gate(NamedTuple):
    """How an LWTA block chooses at inference: Gumbel noise on its logits, then a softmax or one winner."""

    noise: float | None
    """Scale s of the noise; None is the recipe's own, `gate_noise`."""
    temperature: float | None
    """Of the softmax; None is one winner."""


GATES = {
    "sample": Gate(noise=1.0, temperature=None),
    "mean": Gate(noise=0.0, temperature=1.0),
    "argmax": Gate(noise=0.0, temperature=None),
    "noisy": Gate(noise=None, temperature=None),
}
"""A gate more is an entry more."""

STEM_CHANNELS = 16
"""Channels of a WideResNet's stem, whatever its widen factor; the smallest number that units have to divide."""

Probability = Annotated[float, Field(ge=0, le=1)]


class Model(Section):
    """WideResNet-(6n+4)-w, pre-activation (Zagoruyko & Komodakis 2016, 1605.07146)."""

    depth: int = Field(34, ge=10, le=40, description="Layers, 6n + 4: 10, 16, 22, 28, 34 or 40.")
    widen_factor: int = Field(1, ge=1, le=10, description="w: the stages have 16w, 32w and 64w channels.")

    @model_validator(mode="after")
    def _depth_is_6n_plus_4(self) -> Self:
        if (self.depth - 4) % 6:
            raise ValueError(f"`depth` must be 6n + 4 (10, 16, 22, 28, 34 or 40), but got {self.depth}")
        return self


class IBP(Section):
    """Indian buffet process prior over LWTA blocks (Panousis et al. 2019; docs/methods.md)."""

    alpha: float = Field(1.0, gt=0, le=100, description="Concentration of the Beta(alpha, 1) sticks; small is sparse.")
    cutoff: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="A block whose posterior probability is below this is removed at inference.",
    )
    lr: float = Field(
        0.3,
        gt=0,
        le=10,
        description="Peak learning rate of the posterior's logits, in logits an Adam step; same schedule as the rest.",
    )


class LWTA(Section):
    """Stochastic local winner-takes-all activations (Panousis et al. 2021, 2101.01121 and 2112.02671)."""

    units: int = Field(2, ge=2, le=16, description="U: adjacent channels that compete in one block; divides 16.")
    temperature: float = Field(0.67, gt=0, le=10, description="tau of the relaxed gate in training.")
    kl_weight: float = Field(
        1.0, ge=0, le=1000, description="Weight of all KL terms of the ELBO; 1 is the ELBO itself."
    )
    gate: GateMode = Field("sample", description="How a winner is chosen at inference.")
    gate_noise: float | None = Field(
        None,
        ge=0,
        le=100,
        description="Scale s of the noise on the logits, for gate `noisy` only; 0 is `argmax`.",
    )
    ibp: IBP | None = Field(None, description="Prior that lets the network drop blocks; None is off.")

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if STEM_CHANNELS % self.units:
            raise ValueError(
                f"`units` must divide the channels of every layer (16, 16w, 32w, 64w), so 2, 4, 8 or 16, "
                f"but got {self.units}"
            )
        gate_of(self.gate, self.gate_noise)
        return self

    @property
    def is_random(self) -> bool:
        """Whether winners are drawn at inference."""
        return gate_of(self.gate, self.gate_noise).noise != 0


def gate_of(name: GateMode, gate_noise: float | None) -> Gate:
    """The gate of this name, with this noise where it has none of its own.

    Raises:
        ValueError: there is no such gate, or a noise is missing, not wanted, or below 0.
    """
    if name not in GATES:
        raise ValueError(f"the gate must be one of {', '.join(GATES)}, but got {name!r}")
    gate = GATES[name]
    if (gate.noise is None) != (gate_noise is not None):
        wanting = " or ".join(repr(name) for name, gate in GATES.items() if gate.noise is None)
        raise ValueError(
            f"`gate_noise` must be given for gate {wanting} and for no other, but got gate={name!r}, "
            f"gate_noise={gate_noise}"
        )
    if gate_noise is not None and gate_noise < 0:
        raise ValueError(f"`gate_noise` must be at least 0, but got {gate_noise}")
    return gate if gate_noise is None else gate._replace(noise=gate_noise)


class PNI(Section):
    """Parametric noise injection (He, Rakin & Fan, CVPR 2019, 1811.09310)."""

    where: Literal["weights", "inputs", "activations"] = Field(
        "weights", description="The tensor of each convolution and of the classifier that is perturbed."
    )
    granularity: Literal["layer", "channel", "element"] = Field("layer", description="What shares one alpha.")
    alpha: float = Field(0.25, ge=0, le=2, description="Initial alpha, in standard deviations of the tensor.")


class Smoothing(Section):
    """Gaussian noise on the input (randomised smoothing, Cohen et al. 2019, 1902.02918)."""

    sigma: float = Field(0.1, gt=0, le=1, description="Standard deviation, in pixel units of [0, 1].")
    at_inference: bool = Field(True, description="Keep the noise at inference (smoothing); else training only.")


class Mix(Section):
    """Probability with which a training batch meets each attack; sums to 1. Default: the report's section 3.1."""

    clean: Probability = Field(0.5, description="No attack at all.")
    noise: Probability = Field(0.125, description="Uniform noise in the epsilon ball.")
    fgsm: Probability = Field(0.125, description="Fast gradient sign method (one step).")
    pgd: Probability = Field(0.125, description="Projected gradient descent (Madry et al.).")
    cw: Probability = Field(0.125, description="Carlini & Wagner l_2 with fixed c.")
    fgsm_rs: Probability = Field(
        0.0,
        description="FGSM from a random start; a sudden loss of PGD accuracy (its overfitting) ends the trial.",
    )

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        total = sum(getattr(self, name) for name in MIX_NAMES)
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"the probabilities of the mix ({', '.join(MIX_NAMES)}) must sum to 1, but sum to {total:.6g}"
            )
        return self


class Attack(Section):
    """Strength of the training attacks. Lengths are in pixel units of [0, 1]."""

    norm: Norm = Field("linf", description="Norm of the ball for noise, FGSM, FGSM-RS and PGD.")
    epsilon: float = Field(0.1, gt=0, le=64, description="Radius of the ball; at most 1 for linf. 8/255 is 0.0314.")
    step: float = Field(0.025, gt=0, le=64, description="Length of one PGD step.")
    steps: int = Field(5, ge=1, le=1000, description="PGD steps, and Adam steps of CW.")
    cw_c: float = Field(1.0, gt=0, le=1e6, description="CW: weight c of the margin against the squared distance.")
    cw_kappa: float = Field(0.01, ge=0, le=100, description="CW: confidence kappa, in logits.")
    cw_lr: float = Field(0.1, gt=0, le=10, description="CW: learning rate of Adam, in units of the tanh variable.")
    warmup: Probability = Field(0.0, description="Share of training over which epsilon and step grow linearly.")

    @model_validator(mode="after")
    def _reaches_its_ball(self) -> Self:
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError(
                f"`epsilon` is in pixel units of [0, 1] (8/255 = 0.0314) and must be at most 1, "
                f"but got {self.epsilon:g}"
            )
        if self.steps * self.step < self.epsilon * (1 - 1e-6):
            raise ValueError(
                f"`steps * step >= epsilon` must hold, or PGD cannot reach its ball, but got "
                f"{self.steps} * {self.step:g} < {self.epsilon:g}"
            )
        return self


class Training(Section):
    """Optimiser, schedule, loss weights, and what is added to plain adversarial training (docs/methods.md)."""

    epochs: int = Field(12, ge=1, le=10_000, description="Passes over the training set.")
    batch_size: int = Field(128, ge=2, le=65_536, description="Images a step.")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd has Nesterov momentum.")
    lr: float = Field(0.1, gt=0, le=10, description="Peak learning rate.")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum, or AdamW's beta_1.")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="On convolution and linear weights only.")
    schedule: Literal["one-cycle", "cosine", "constant"] = Field(
        "one-cycle", description="Learning rate over the epochs, stepped each batch."
    )
    clean_weight: Probability = Field(
        0.0, description="Weight of the clean cross-entropy on an attacked batch; PNI's paper has 0.5."
    )
    augment: bool = Field(True, description="Apply the dataset's standard augmentation, where it has one.")
    trades: float | None = Field(
        None,
        gt=0,
        le=100,
        description="TRADES: weight beta of the KL on an attacked batch, beside the clean cross-entropy; None is off.",
    )
    awp: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Adversarial weight perturbation: gamma, its size as a share of each layer's norm; None is off.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Epochs without a better PGD accuracy on validation images that end training; None is off.",
    )

    @model_validator(mode="after")
    def _trades_has_its_own_clean_term(self) -> Self:
        if self.trades is not None and self.clean_weight:
            raise ValueError(
                f"`clean_weight` must be 0 with `trades`, whose clean cross-entropy has weight 1, "
                f"but got {self.clean_weight:g}"
            )
        return self


class Recipe(Section):
    """One defence, whole: network, prior, noise, attacks, training and inference."""

    model: Model = Field(default_factory=Model, description="The network's size.")
    lwta: LWTA | None = Field(None, description="LWTA activations; None is ReLU.")
    pni: PNI | None = Field(None, description="Parametric noise injection; None is off.")
    smoothing: Smoothing | None = Field(None, description="Gaussian input noise; None is off.")
    mix: Mix = Field(default_factory=Mix, description="What a training batch meets.")
    attack: Attack = Field(default_factory=Attack, description="Strength of the training attacks.")
    training: Training = Field(default_factory=Training, description="Optimiser, schedule, loss weights.")
    draws: int = Field(1, ge=1, le=256, description="K: predictions averaged per image, in probability space.")

    @model_validator(mode="after")
    def _draws_need_randomness(self) -> Self:
        if self.draws > 1 and not self.is_stochastic:
            raise ValueError(f"`draws` above 1 needs a network that is random at inference, but got draws={self.draws}")
        return self

    @model_validator(mode="after")
    def _recipes_have_their_attack(self) -> Self:
        if self.training.trades is not None and (self.mix.pgd == 0 or self.mix.pgd + self.mix.clean < 1 - 1e-6):
            shares = ", ".join(f"{name}={getattr(self.mix, name):g}" for name in MIX_NAMES)
            raise ValueError(
                f"`trades` has an attack of its own in the place of `pgd`, so the mix must be of `pgd` and `clean` "
                f"alone, but got {shares}"
            )
        if self.training.awp is not None and self.mix.clean == 1:
            raise ValueError("`awp` perturbs weights on attacked batches, so the mix must have some, but got clean=1")
        return self

    @property
    def activation(self) -> Activation:
        """The activation function: `lwta` where that part is on, else `relu`."""
        return "lwta" if self.lwta else "relu"

    @property
    def is_stochastic(self) -> bool:
        """Whether two predictions of one image can differ."""
        random_gate = self.lwta is not None and self.lwta.is_random
        return random_gate or self.pni is not None or (self.smoothing is not None and self.smoothing.at_inference)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of SHA-256 over the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def to_json(self) -> str:
        """Canonical JSON: every field, sorted, no spaces; `Recipe.from_json` gives the same recipe back."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that `to_json` wrote.

        Raises:
            RecipeError: the text is no JSON or breaks a rule.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise RecipeError(explain(error)) from error

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Recipe:
        """A recipe from nested plain values.

        Raises:
            RecipeError: a value breaks a rule; the message names the field, the rule and the value.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise RecipeError(explain(error)) from error

    def replace(self, **fields: Any) -> Recipe:
        """This recipe with other values; a name may be dotted: `replace(**{"training.epochs": 3})`."""
        values = self.model_dump()
        for name, value in fields.items():
            *parents, leaf = name.split(".")
            part = values
            for parent in parents:
                if not isinstance(part.get(parent), dict):
                    raise RecipeError(
                        f"`{name}` must name a field of a part that is on, but `{parent}` is off or unknown"
                    )
                part = part[parent]
            part[leaf] = value
        return Recipe.of(values)

    def describe(self) -> str:
        """The defence in a few words: "WRN-34-1, LWTA-2 sample, IBP, K=4"."""
        words = [f"WRN-{self.model.depth}-{self.model.widen_factor}"]
        if self.lwta:
            noise = "" if self.lwta.gate_noise is None else f" {self.lwta.gate_noise:.2g}"
            words.append(f"LWTA-{self.lwta.units} {self.lwta.gate}{noise}")
            words += ["IBP"] if self.lwta.ibp else []
        else:
            words.append("ReLU")
        words += [f"PNI {self.pni.where} {self.pni.granularity}"] if self.pni else []
        words += [f"smoothing {self.smoothing.sigma:.2g}"] if self.smoothing else []
        words += ["TRADES"] if self.training.trades else []
        words += ["AWP"] if self.training.awp else []
        words += [f"K={self.draws}"] if self.draws > 1 else []
        return ", ".join(words)

    def flat(self) -> dict[str, Any]:
        """Dotted names to plain values, `None` for what is off; the columns of a results table."""
        return {"activation": self.activation} | flat(type(self), self.model_dump(mode="json"))


def field_docs() -> dict[str, str]:
    """Dotted name of every recipe field to its line of documentation."""
    return {name: str(info.description) for name, info in leaves(Recipe)}


def explain(error: ValidationError) -> str:
    """A validation error as lines that name the field, the rule and the value."""
    return explained(error, field_docs())
