"""A deep equilibrium as a module of an ordinary network: any cell, any shape of state, and a report of each solve."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from jiio_lightning.core.equilibrium import Backward, Linearisation, adjoint, equilibrium
from jiio_lightning.core.inner import SolveError
from jiio_lightning.core.problem import autocast_dtype
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import FixedPoint, Solution

State = Tensor | tuple[Tensor, ...]
"""z: one tensor ``(B, ...)``, or several that are solved together."""


@dataclass(frozen=True)
class SolveReport:
    """How far a solve came, sample by sample.

    Example:
        >>> report = SolveReport(torch.tensor([1e-6, 0.5]), num_steps=9, finite=torch.tensor([True, True]), tol=1e-3)
        >>> report.converged.tolist()
        [True, False]
        >>> report.require(tol=0.6).num_steps
        9
    """

    residual: Tensor  # (B,) ||f(z) - z|| / ||f(z)|| at the last iterate; of the adjoint, the same of mu
    num_steps: int  # evaluations of f, or products with its Jacobian
    finite: Tensor  # (B,) bool, False where the sample fell back to its last finite iterate
    tol: float  # of the solver; 0 where it ran its whole budget

    @classmethod
    def of(cls, solution: Solution, tol: float) -> SolveReport:
        """From a packed solve."""
        return cls(solution.residual, solution.num_steps, solution.finite, tol)

    @property
    def converged(self) -> Tensor:
        """``(B,)`` bool: the samples that are solved to ``tol``; none without one."""
        return self.finite & (self.residual < self.tol)

    def require(self, tol: float | None = None) -> SolveReport:
        """This report, or a SolveError unless all samples are finite and solved to tol, the solver's unless given."""
        wanted = self.tol if tol is None else tol
        missed = ~(self.finite & (self.residual < wanted))
        if bool(missed.any()):
            raise SolveError(
                f"{int(missed.sum())} of {missed.numel()} samples are not solved to tol={wanted:g} after {self.num_steps} steps "
                f"({int((~self.finite).sum())} not finite, largest residual {float(self.residual.amax()):.1e}). Raise max_steps "
                "or tol, take Anderson or Broyden, or make the cell a contraction (core.jacobian)."
            )
        return self


class DEQ(nn.Module):
    r"""The fixed point :math:`z^* = f(z^*, \ldots)` of a cell f as a layer, with its implicit gradient (Eq. 3 and 7).

    ``z, report = deq(x, z0=z0)`` solves z = cell(z, x), from z0, for each sample on its own. z0 says the shape, type and device
    of z: one tensor ``(B, ...)``, or a tuple of them, and then the cell takes and returns a tuple. What else is given goes to the
    cell; z has gradients to that, to the cell's parameters and to what it captures, in training and evaluation mode alike. The
    fixed point does not depend on z0, and z has no gradient to it: a warm start is the last ``z`` as it is.

    The cell has to be one function for the whole call: no new dropout mask in each evaluation. Under autocast it runs in the low
    precision, while state and solve stay in the type of z0; bfloat16 rounds to 0.4 %, so ask for a tol of about 1e-2 there.
    ``torch.compile`` the cell; in a compiled network the DEQ runs as it is, between two graphs.

    Args:
        cell: a module, whose parameters are then those of the DEQ, or a function.
        forward: solver of z; Anderson to a relative residual of 1e-4 unless given.
        backward: solver of the adjoint (Eq. 9), in the backward pass; the same unless given. ``Neumann(k)`` truncates it after k
            products with the Jacobian, ``Neumann(0)`` is the one-step gradient.

    Attributes:
        adjoint: report of the last backward solve; None before it, and for a rule without a residual such as ``Neumann``.

    Raises:
        ValueError: if z0 is no batch, or the cell returns other shapes than it takes.
        RuntimeError: in a backward pass with ``create_graph``, and under the transforms of ``torch.func``.

    Warns:
        RuntimeWarning: in the backward pass, if a sample ends above the tolerance of ``backward``: its gradient is off.

    Example:
        >>> from jiio_lightning.core import Neumann
        >>> _ = torch.manual_seed(0)
        >>> linear = nn.Linear(3, 3)
        >>> deq = DEQ(lambda z, x: torch.tanh(0.5 * linear(z) + x))
        >>> x = torch.randn(8, 3)
        >>> z, report = deq(x, z0=torch.zeros(8, 3))
        >>> z.sum().backward()
        >>> bool(report.converged.all() and deq.adjoint.converged.all()), linear.weight.grad.shape
        (True, torch.Size([3, 3]))

        Two tensors of their own shapes, from where the last call ended:

        >>> deq = DEQ(lambda z, x: (0.5 * z[1].flatten(1) + x, 0.5 * z[0].unflatten(1, (3, 1))), backward=Neumann(2))
        >>> z, cold = deq(x, z0=(torch.zeros(8, 3), torch.zeros(8, 3, 1)))
        >>> z, warm = deq(x, z0=z)
        >>> cold.num_steps > warm.num_steps == 1
        True
    """

    adjoint: SolveReport | None

    def __init__(self, cell: Callable[..., State], forward: FixedPoint | None = None, backward: Backward | None = None) -> None:
        super().__init__()
        self.cell = cell
        self.forward_solver = FixedPoint(Anderson(memory=6), 50, tol=1e-4) if forward is None else forward
        self.backward_solver = FixedPoint(Anderson(memory=6), 50, tol=1e-4) if backward is None else backward
        self.adjoint = None

    def forward(self, *args: object, z0: State) -> tuple[State, SolveReport]:
        """z, shaped as z0, and the report of its solve: the residual is that of the last iterate, and z is f there."""
        if torch.compiler.is_compiling():
            return torch.compiler.disable(self.forward)(*args, z0=z0)
        if torch._C._are_functorch_transforms_active():  # some would drop the hook that solves the adjoint, without a word
            raise RuntimeError(
                "a DEQ has no torch.func transforms (grad, vmap, jvp ...): use torch.autograd, and batches for vmap"
            )
        packing, low = _Packing.of(z0), autocast_dtype()

        def f(z: Tensor, _: Tensor) -> Tensor:
            # The solver's arithmetic is outside autocast; the cell is not.
            with nullcontext() if low is None else torch.autocast(z.device.type, dtype=low):
                return packing.pack(self.cell(packing.unpack(z), *args))

        start = packing.pack(z0)
        nothing = start[:, :0]  # arguments and weights are in the closure
        solution = self.forward_solver(lambda z: f(z, nothing), start)
        z = equilibrium(f, nothing, solution.value, None, self._backward)
        return packing.unpack(z), SolveReport.of(solution, self.forward_solver.tol)

    def _backward(self, at: Linearisation, cotangent: Tensor) -> Tensor:
        if not isinstance(self.backward_solver, FixedPoint):
            return self.backward_solver(at, cotangent)
        # From the first term of the series: at 0 the first product would be one with zeros.
        solution = adjoint(at, cotangent, self.backward_solver, mu0=cotangent)
        self.adjoint = SolveReport.of(solution, self.backward_solver.tol)
        if self.adjoint.tol > 0 and not bool(self.adjoint.converged.all()):
            warnings.warn(
                "DEQ: the backward solve has ended above its tolerance in some samples, and their gradients are off: look at "
                "deq.adjoint, and raise max_steps or tol of backward, or make the cell a contraction (core.jacobian)",
                RuntimeWarning,
                stacklevel=2,
            )
        return solution.value


@dataclass(frozen=True)
class _Packing:
    """How the tensors of a state lie in one matrix ``(B, N)``; a single one is only viewed."""

    shapes: tuple[torch.Size, ...]  # of each, the batch first
    dtype: torch.dtype
    single: bool  # a tensor, no tuple

    @classmethod
    def of(cls, z0: State) -> _Packing:
        parts = _parts(z0)
        if not parts or any(part.ndim == 0 or not part.is_floating_point() or len(part) != len(parts[0]) for part in parts):
            raise ValueError(
                "z0 has to be a tensor of real numbers, or a tuple of them, with the same batch first, not "
                f"{[(tuple(part.shape), part.dtype) for part in parts]}"
            )
        return cls(tuple(part.shape for part in parts), parts[0].dtype, isinstance(z0, Tensor))

    def pack(self, z: State) -> Tensor:
        parts = _parts(z)
        shapes = tuple(part.shape for part in parts)
        if shapes != self.shapes:
            words = " and ".join(str(tuple(shape)) for shape in self.shapes), " and ".join(str(tuple(shape)) for shape in shapes)
            raise ValueError(f"the cell has to return {words[0]}, as z0 is, not {words[1]}")
        rows = [part.reshape(len(part), prod(part.shape[1:])) for part in parts]
        return (rows[0] if self.single else torch.cat(rows, dim=1)).to(self.dtype)

    def unpack(self, packed: Tensor) -> State:
        if self.single:
            return packed.reshape(self.shapes[0])
        parts = packed.split([prod(shape[1:]) for shape in self.shapes], dim=1)
        return tuple(part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True))


def _parts(z: State) -> Sequence[Tensor]:
    return (z,) if isinstance(z, Tensor) else tuple(z)
