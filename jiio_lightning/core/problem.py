"""The inner problem min_x l(z, x) s.t. z = f(z, x) and its Lagrangian (Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jiio_lightning.core.state import Augmented


def unconstrained(x: Tensor) -> Tensor:
    """The projection of a problem without a constraint on x."""
    return x


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of f, of the loss and of one backward pass at an iterate v.

    Args:
        gradient: dL/d(z, mu, x), the rows of Eq. 14, each shaped as its block of v.
        loss: inner loss ``(B,)``.
    """

    gradient: Augmented
    loss: Tensor


@dataclass(frozen=True)
class InnerProblem:
    r"""``min_x l(z, x)`` subject to ``z = f(z, x)`` and ``x in C`` (Eq. 12), for a batch of independent samples.

    Args:
        f: the cell, ``(B, n), (B, d) -> (B, n)``.
        loss: inner loss of each sample, ``(B, n), (B, d) -> (B,)``; it holds the head h and the target.
        project: Euclidean projection of x on C, ``(B, d) -> (B, d)``.
    """

    f: Callable[[Tensor, Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    project: Callable[[Tensor], Tensor] = unconstrained

    def lagrangian(self, v: Augmented) -> Tensor:
        r"""Value of Eq. 13 for each sample.

        .. math:: L(z, \mu, x) = \ell(z, x) + \mu^\top (f_\theta(z, x) - z)

        At a KKT point its gradient with respect to :math:`\theta` is the exact gradient of the inner optimum (Eq. 19).

        Args:
            v: iterate with z ``(B, n)``, mu ``(B, n)`` and x ``(B, d)``.

        Returns:
            Tensor of shape ``(B,)``.
        """
        return self.loss(v.z, v.x) + (v.mu * (self.f(v.z, v.x) - v.z)).sum(dim=1)

    def evaluate(self, v: Augmented) -> Evaluation:
        r"""The KKT map of Eq. 14 before projection: dL/dz, dL/dmu, dL/dx, from one evaluation of f and one backward.

        .. math::
            \partial_z L = J_z^\top \mu + \partial_z \ell - \mu, \quad
            \partial_\mu L = f(z, x) - z, \quad
            \partial_x L = J_x^\top \mu + \partial_x \ell
        """
        with torch.enable_grad():
            z, x = _leaf(v.z), _leaf(v.x)
            image, loss = self.f(z, x), self.loss(z, x)
            dz, dx = torch.autograd.grad((loss, image), (z, x), (torch.ones_like(loss), v.mu), materialize_grads=True)
        return Evaluation(Augmented(z=dz - v.mu, mu=image.detach() - v.z, x=dx), loss.detach())

    def gradients(self, v: Augmented) -> Augmented:
        """The gradient part of :meth:`evaluate`."""
        return self.evaluate(v).gradient


def loss_gradient(loss: Callable[[Tensor, Tensor], Tensor], v: Augmented) -> Evaluation:
    """A loss of (z, x) at v ``(B,)`` and its own gradient with respect to v, not that of L; the mu-part is 0."""
    with torch.enable_grad():
        z, x = _leaf(v.z), _leaf(v.x)
        value = loss(z, x)
        dz, dx = torch.autograd.grad(value.sum(), (z, x), materialize_grads=True)
    return Evaluation(Augmented(z=dz, mu=torch.zeros_like(v.mu), x=dx), value.detach())


def _leaf(block: Tensor) -> Tensor:
    """A leaf that autograd can differentiate; an inference tensor has to be copied for that."""
    block = block.clone() if block.is_inference() else block
    return block.detach().requires_grad_()
