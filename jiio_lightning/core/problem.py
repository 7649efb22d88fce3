"""The inner problem min_x l(z, x) s.t. z = f(z, x) and its Lagrangian (Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jiio_lightning.core.projections import unconstrained
from jiio_lightning.core.state import Augmented


@dataclass(frozen=True)
class Evaluation:
    """A loss of (z, x) and a gradient at an iterate v.

    Example:
        >>> at = Evaluation(gradient=Augmented.start(torch.ones(4, 2), hidden=3), loss=torch.zeros(4))
        >>> at.gradient.mu.shape, at.loss.shape
        (torch.Size([4, 3]), torch.Size([4]))
    """

    gradient: Augmented  # with respect to (z, mu, x), each block shaped as its block of v
    loss: Tensor  # (B,)


@dataclass(frozen=True)
class InnerProblem:
    r"""``min_x l(z, x)`` subject to ``z = f(z, x)`` and ``x in C`` (Eq. 12), for a batch of independent samples.

    Example:
        The optimum of this one is z = 4, mu = -2, x = 2: there all gradients of the Lagrangian vanish.

        >>> problem = InnerProblem(
        ...     f=lambda z, x: z / 2 + x, loss=lambda z, x: 0.5 * ((z - 5).square() + x.square()).sum(1)
        ... )
        >>> z, mu, x = torch.tensor([[4.0], [-2.0], [2.0]], dtype=torch.float64).split(1)
        >>> problem.gradients(Augmented(z, mu, x)).pack().tolist()
        [[0.0, 0.0, 0.0]]

    Raises:
        ValueError: at the first evaluation, where f or the loss returns another shape than here, x is not of real numbers or on
            another device than the net, or the batch is empty.
    """

    f: Callable[[Tensor, Tensor], Tensor]  # the cell, (B, n), (B, d) -> (B, n)
    loss: Callable[[Tensor, Tensor], Tensor]  # (B, n), (B, d) -> (B,), of each sample; holds h and the target
    project: Callable[[Tensor], Tensor] = unconstrained  # Euclidean projection of x on C, (B, d) -> (B, d)

    def __post_init__(self) -> None:
        # Frozen, so that nobody exchanges them later: what enters here is checked and converted here, and nowhere else.
        object.__setattr__(self, "f", _Entry.of(self.f, _cell_shape))
        object.__setattr__(self, "loss", _Entry.of(self.loss, _loss_shape))

    def enter(self, v0: Augmented) -> Augmented:
        """v0 outside any graph and with x in C, where every solve begins.

        Raises:
            ValueError: if it is no batch of real numbers on one device, or project changes its shape; under inference_mode.
        """
        if torch.is_inference_mode_enabled():
            raise ValueError("a solve takes gradients: Trainer(inference_mode=False), or torch.no_grad() for inference_mode()")
        z, mu, x = v0.z, v0.mu, v0.x
        alike = x.ndim == z.ndim == 2 and len(x) == len(z) and z.shape == mu.shape
        if not alike or not x.is_floating_point() or not len(x) or x.is_meta or {z.device, mu.device} != {x.device}:
            raise ValueError(
                f"a solve needs an x (B, d) of real numbers, at least one row, on the device of the net, and z and mu (B, n) "
                f"there: x is {tuple(x.shape)} of {x.dtype} on {x.device}, z {tuple(z.shape)} on {z.device} and mu "
                f"{tuple(mu.shape)} on {mu.device}"
            )
        allowed = self.project(x.detach())
        if allowed.shape != x.shape:
            raise ValueError(f"project has to return {tuple(x.shape)}, as x is, not {tuple(allowed.shape)}")
        return replace(v0.detach(), x=allowed)

    def in_full_precision(self) -> InnerProblem:
        """This problem without autocast: what judges an answer is not rounded to bfloat16."""
        return replace(self, **{name: replace(getattr(self, name), low=None) for name in ("f", "loss")})

    def lagrangian(self, v: Augmented) -> Tensor:
        r"""Value of Eq. 13 for each sample ``(B,)``.

        .. math:: L(z, \mu, x) = \ell(z, x) + \mu^\top (f_\theta(z, x) - z)

        At a KKT point its gradient with respect to :math:`\theta` is the exact gradient of the inner optimum (Eq. 19).
        """
        return self.loss(v.z, v.x) + (v.mu * (self.f(v.z, v.x) - v.z)).sum(dim=1)

    def evaluate(self, v: Augmented) -> Evaluation:
        r"""The inner loss and dL/dv, the KKT map of Eq. 14 before projection, from one evaluation of f and one backward pass.

        .. math::
            \partial_z L = J_z^\top \mu + \partial_z \ell - \mu, \quad
            \partial_\mu L = f(z, x) - z, \quad
            \partial_x L = J_x^\top \mu + \partial_x \ell
        """
        with torch.enable_grad():
            z, x = _leaf(v.z), _leaf(v.x)
            fz, loss = self.f(z, x), self.loss(z, x)
            # With the cotangents 1 and mu both gradients come out as sums, J^T mu + dl; what does not see x adds 0.
            dz, dx = torch.autograd.grad((loss, fz), (z, x), (torch.ones_like(loss), v.mu), materialize_grads=True)
        return Evaluation(Augmented(z=dz - v.mu, mu=fz.detach() - v.z, x=dx), loss.detach())

    def gradients(self, v: Augmented) -> Augmented:
        """The gradient part of :meth:`evaluate`."""
        return self.evaluate(v).gradient


@dataclass(frozen=True)
class _Entry:
    """f or the loss of a user: it runs under the autocast that was on where the problem was made, and its answer is as z is.

    Raises:
        ValueError: for an answer of another shape or device, or an x on another device than the net.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    shape: Callable[[Tensor], tuple[str, torch.Size]]  # the name of the function, and the shape of its answer for a z
    low: torch.dtype | None  # of autocast, if any

    @classmethod
    def of(cls, function: Callable[[Tensor, Tensor], Tensor], shape: Callable[[Tensor], tuple[str, torch.Size]]) -> _Entry:
        if isinstance(function, _Entry):
            return replace(function, shape=shape)
        return cls(function, shape, autocast_dtype())

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        try:
            answer = self._run(z, x)
        except RuntimeError as error:
            if not any(words in str(error) for words in ("same device", "expected device")):  # not "device-side assertions"
                raise
            raise ValueError(f"x is on {x.device} and the net is not: move one of them ({str(error).splitlines()[0]})") from error
        name, shape = self.shape(z)
        if answer.shape != shape or answer.device != z.device:
            raise ValueError(
                f"{name} has to return {tuple(shape)} on {z.device} for z {tuple(z.shape)} and x {tuple(x.shape)}, "
                f"not {tuple(answer.shape)} on {answer.device}"
            )
        return answer.to(z.dtype)

    def _run(self, z: Tensor, x: Tensor) -> Tensor:
        with torch.autocast(z.device.type, dtype=self.low, enabled=self.low is not None):
            return self.function(z, x)


def autocast_dtype() -> torch.dtype | None:
    """Of the autocast that is on, if any: a solve turns it off, and what the solve evaluates turns it on again.

    Example:
        >>> with torch.autocast("cpu"):
        ...     autocast_dtype()
        torch.bfloat16
    """
    kind = next((kind for kind in ("cuda", "cpu") if torch.is_autocast_enabled(kind)), None)
    return None if kind is None else torch.get_autocast_dtype(kind)


def _cell_shape(z: Tensor) -> tuple[str, torch.Size]:
    return "f", z.shape


def _loss_shape(z: Tensor) -> tuple[str, torch.Size]:
    return "the loss, one number a sample,", z.shape[:1]


def loss_gradient(loss: Callable[[Tensor, Tensor], Tensor], v: Augmented) -> Evaluation:
    """A loss of (z, x) at v ``(B,)`` and its own gradient with respect to v, not that of L; the mu-part is 0.

    Example:
        >>> v = Augmented.start(torch.tensor([[3.0]]), hidden=1)
        >>> at = loss_gradient(lambda z, x: (z + x).square().sum(1), v)
        >>> at.loss.item(), at.gradient.z.item(), at.gradient.x.item()
        (9.0, 6.0, 6.0)
    """
    with torch.enable_grad():
        z, x = _leaf(v.z), _leaf(v.x)
        value = loss(z, x)
        dz, dx = torch.autograd.grad(value.sum(), (z, x), materialize_grads=True)
    return Evaluation(Augmented(z=dz, mu=torch.zeros_like(v.mu), x=dx), value.detach())


def _leaf(block: Tensor) -> Tensor:
    """A leaf that autograd can differentiate; an inference tensor has to be copied for that."""
    block = block.clone() if block.is_inference() else block
    return block.detach().requires_grad_()
