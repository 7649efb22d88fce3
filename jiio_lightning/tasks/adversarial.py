"""Adversarial training of equilibrium classifiers (Sec. 4.3, B.2)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import NonNegativeInt
from torch import Tensor

from jiio_lightning.attacks.base import Attack, Attacked
from jiio_lightning.attacks.joint import SolverAttack
from jiio_lightning.attacks.named import CLEAN, JIIO, NAMED
from jiio_lightning.attacks.target import Target
from jiio_lightning.attacks.threat import ThreatModel
from jiio_lightning.core.inner import InnerSolver
from jiio_lightning.core.outer import DualReuse, Loss, OuterGradient
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.steps import Normalised, Sign
from jiio_lightning.core.weights import cached_weights
from jiio_lightning.models.interface import Classifier
from jiio_lightning.starts import ClassPerturbation
from jiio_lightning.tasks.base import JIIOTask, in_full_precision
from jiio_lightning.tasks.generation import check_images

UNCONVERGED = 1e-3
"""Relative residual of the re-solved z above which a verdict is not that of an equilibrium."""


class AdversarialTraining(JIIOTask):
    r"""Trains a classifier on the worst perturbation of each image that the inner solver finds (Eq. 25-26).

    .. math:: \min_\theta \sum_i \ell(h_\theta(z_i^*), y_i) \quad \text{with} \quad
              z_i^*, \delta_i^* = \arg\min_{\delta, z} -\ell(h_\theta(z), y_i) \quad \text{s.t.} \quad
              z = f_\theta(z, x_i + \delta), \; \|\delta\| \le \epsilon

    The regime is the injected solver: Joint (the paper's), Nested (PGD), or Nested with a single evaluation, which solves z and
    mu at the clean image and so trains with the ordinary implicit gradient (conf/solver/adversarial_*.yaml). The outer loss is
    minus the inner one: its gradient is minus that of the Lagrangian, with the same mu (Eq. 19).

    Args:
        net: the classifier.
        eps: radius of the ball, in units of pixels in [0, 1] (Table 5: 1, Table 8: 0.5).
        norm: ``l2`` or ``linf``.
        pixel_box: keep attacked images in [0, 1] (the paper does not).
        learning_rate: of Adam (Table 9: 1e-3).
        one_cycle: warm up and anneal over the run.
        warm: solves z at the start before each inner solve; from z = 0 unless given (the paper).
        random_start: start at a random perturbation in training (the paper starts at 0).
        attacks: names of the attacks of ``jiio test`` (attacks.named): pgd, pgd_strong, jiio (the run file's ``solver.test``),
            autoattack, intermediate.
        own_attacks: further ones, by the name of their metrics, which is none of the others'.
        outer: outer gradient; DualReuse(sign=-1) unless given, with ``refine`` if mu is to be polished.
        seed: of random starts, which are functions of (seed, step, sample).

    Raises:
        ValueError: for an eps, a norm or an outer gradient without a meaning, or an own attack by the name of another.
    """

    def __init__(
        self,
        net: Classifier,
        eps: float = 1.0,
        norm: Literal["l2", "linf"] = "l2",
        pixel_box: bool = False,
        learning_rate: float = 1e-3,
        one_cycle: bool = True,
        warm: FixedPoint | None = None,
        random_start: bool = False,
        attacks: tuple[str, ...] = ("pgd", "jiio"),
        own_attacks: dict[str, Attack] | None = None,
        outer: OuterGradient | None = None,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(DualReuse(sign=-1) if outer is None else outer, learning_rate, one_cycle)
        if isinstance(outer, DualReuse) and outer.sign > 0:
            raise ValueError("adversarial training ascends in the inner loss: outer: DualReuse needs sign: -1")
        self.net = net
        self.threat = ThreatModel(eps, norm, pixel_box)
        self.warm = warm
        self.random_start = random_start
        self.attacks = tuple(attacks)
        self.own_attacks = {} if own_attacks is None else own_attacks
        taken = sorted({*NAMED, JIIO} & self.own_attacks.keys())
        if taken:
            raise ValueError(f"own_attacks: {taken[0]} is an attack already: give yours another name")
        for name in self.attacks:
            self._check_name(name)  # now, not in the test after the training
        self.seed = seed
        self.learned_start: ClassPerturbation = ClassPerturbation()

    @property
    def capturable(self) -> bool:  # type: ignore[override]
        return not self.random_start

    def problem(self, batch) -> InnerProblem:  # noqa: ANN001
        """Eq. 26: minus the cross-entropy of each image, delta ``(B, C * H * W)`` in the ball, and in the pixel box if wanted.

        Raises:
            ValueError: if images or labels do not fit the net, or an image leaves [0, 1].
        """
        if self.may_wait:
            check_attackable(batch.image, batch.label, self.net)
        pixels = batch.image.flatten(1)

        def f(z: Tensor, delta: Tensor) -> Tensor:
            return self.net.f(z, pixels + delta)

        def loss(z: Tensor, delta: Tensor) -> Tensor:
            # Minus: the solvers minimise, so that an attack is an inner problem like the others.
            return -F.cross_entropy(self.net.h(z), batch.label, reduction="none")

        return InnerProblem(f, loss, self.threat.projection(pixels))

    def target(self, batch) -> Target:  # noqa: ANN001
        """What there is to attack in a batch."""
        problem, resolve = self.problem(batch), self.injected.resolve
        return Target(problem, self.net, batch.image, batch.label, batch.index, self.threat, resolve, self.seed)

    def start(self, batch) -> Augmented:  # noqa: ANN001
        """delta = 0, or random; z = 0, or the equilibrium there; mu = 0."""
        self._check_step(self.injected.budget(self))
        target = self.target(batch)
        random = self.random_start and self.training  # a test is to be repeatable, and its attacks have restarts of their own
        return target.start(target.random(self.global_step) if random else target.zero(), self.warm)

    def at_learned_start(self, batch) -> Augmented:  # noqa: ANN001
        """The perturbation that was best for the image's class; z = 0, or the equilibrium there; mu = 0."""
        self._check_step(self.injected.budget(self))
        target = self.target(batch)
        # z at the perturbed image, not at the clean one: the cost after 8 steps went from -0.205 to -0.209.
        return target.start(self.threat.farthest(target.pixels, self.learned_start(target.label)), self.warm)

    def examples(self, batch, start: Augmented, v: Augmented) -> dict[str, Tensor]:  # noqa: ANN001
        """Perturbations and labels."""
        return {"x": v.x, "label": batch.label}

    def outer_loss(self, batch, problem: InnerProblem) -> Loss:  # noqa: ANN001
        """The cross-entropy: minus the inner loss."""
        return lambda z, x: -problem.loss(z, x)

    def evaluate(self, batch, problem: InnerProblem, z: Tensor, x: Tensor) -> dict[str, Tensor]:  # noqa: ANN001
        """``accuracy`` (0 or 1) and ``loss``, the cross-entropy, at an iterate; a ValueError if x is not allowed."""
        if self.may_wait:
            self.threat.check(batch.image.flatten(1), x)
        hits = self.net.h(z).argmax(dim=1) == batch.label
        return {"accuracy": hits.float(), "loss": -problem.loss(z, x)}

    def training_metrics(self, batch, problem: InnerProblem, v: Augmented) -> dict[str, Tensor]:  # noqa: ANN001
        """``loss`` and ``accuracy`` under the attack, at the iterate that the solver returned."""
        with torch.no_grad():
            return {k: v.mean() for k, v in self.evaluate(batch, problem, v.z, v.x).items()}

    def attack(self, name: str) -> Attack:
        """One of ``own_attacks``, of ``attacks.NAMED``, or ``jiio``: the run file's ``solver.test`` from where the task begins.

        Raises:
            ValueError: for an unknown name.
        """
        if name in self.own_attacks:
            return self.own_attacks[name]
        if name in NAMED:
            return NAMED[name]()
        self._check_name(name)
        self._check_step(self.injected.budget(self))
        return SolverAttack(self.injected.budget(self), first=self.initial)

    def _check_name(self, name: str) -> None:
        """Refuse, by a ValueError, an attack that there is not."""
        known = [*NAMED, JIIO, *self.own_attacks]
        if name not in known:
            raise ValueError(f"there is no attack {name!r}: choose from {', '.join(known)}")

    def _check_step(self, solver: InnerSolver) -> None:
        """Refuse, by a ValueError, the steps of the other norm."""
        # They are weak in this ball, and a weak attack looks like a robust net.
        step, steepest = getattr(solver, "step", None), self.threat.steepest(1.0)
        if isinstance(step, Normalised | Sign) and type(step) is not type(steepest):
            raise ValueError(
                f"model.norm is {self.threat.norm} and the solver's step {type(step).__name__}, the other norm's: set "
                f"solver.train.step and solver.test.step to jiio_lightning.core.steps.{type(steepest).__name__}"
            )

    @torch.no_grad()
    @in_full_precision
    def attacked(self, batch, names: tuple[str, ...]) -> dict[str, Attacked]:  # noqa: ANN001
        """The outcome of each attack by its name, judged at z re-solved."""
        target = self.target(batch)
        with cached_weights(self):  # once for all attacks
            return {name: self.attack(name)(target) for name in names}

    def validation_step(self, batch, batch_idx: int) -> dict[str, Tensor]:  # noqa: ANN001
        """As test_step, for clean images and the run file's own attack."""
        return self._judged("val", batch, (CLEAN, JIIO))

    def test_step(self, batch, batch_idx: int) -> dict[str, Tensor]:  # noqa: ANN001
        """For each attack X ``accuracy_X``, ``loss_X``, ``residual_X``, ``unconverged_X`` of each sample ``(B,)``; ``index``."""
        return self._judged("test", batch, self.test_attacks)

    @property
    def test_attacks(self) -> tuple[str, ...]:
        """The names of the attacks of a test; clean images are always the first."""
        return tuple(dict.fromkeys((CLEAN, *self.attacks, *self.own_attacks)))

    def predict_step(self, batch, batch_idx: int) -> dict[str, Tensor]:  # noqa: ANN001
        """``logits`` and ``label`` of clean images, and ``index``."""
        verdict = self.attacked(batch, (CLEAN,))[CLEAN].verdict
        return {"logits": verdict.logits, "label": batch.label, "index": batch.index}

    def _judged(self, stage: str, batch, names: tuple[str, ...]) -> dict[str, Tensor]:  # noqa: ANN001
        found = metrics(self.attacked(batch, names))
        self._log(stage, {name: value.mean() for name, value in found.items()}, len(batch.index))
        return found | {"index": batch.index}


def metrics(attacked: dict[str, Attacked]) -> dict[str, Tensor]:
    """Per-sample metrics ``(B,)`` of each attack: accuracy, cross-entropy, and how well z was re-solved."""
    found: dict[str, Tensor] = {}
    for name, outcome in attacked.items():
        verdict = outcome.verdict
        found |= {
            f"accuracy_{name}": verdict.correct.float(),
            f"loss_{name}": verdict.loss,
            f"residual_{name}": verdict.residual,
            f"unconverged_{name}": (verdict.residual > UNCONVERGED).float(),
        }
    return found


def check_attackable(image: Tensor, label: Tensor, net: Classifier) -> None:
    """Refuse, by a ValueError, images and labels that the net or the unit of eps does not fit."""
    check_images(image, net)
    low, high = float(image.amin()), float(image.amax())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"eps is in units of pixels in [0, 1], the images go from {low:.3g} to {high:.3g}: set data.value_range: [0, 1]"
        )
    first, last = int(label.amin()), int(label.amax())
    if not 0 <= first <= last < net.num_classes:
        raise ValueError(
            f"labels go from {first} to {last} and the net knows {net.num_classes} classes: "
            "set model.net.num_classes to the data's"
        )
