"""DEQ: its gradients against explicit Jacobians, what it reports, and what it is used with."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from jiio_lightning.core import DEQ, Neumann, SolveError
from jiio_lightning.core.jacobian import jacobian_penalty
from jiio_lightning.core.solvers import Anderson, Broyden, FixedPoint, Picard

EXACT = FixedPoint(Anderson(memory=8), 100, tol=1e-13)
SHAPES = {
    "numbers": ((),),
    "rows": ((5,),),
    "images": ((2, 2, 3),),
    "two tensors": ((3,), (2, 1, 2)),
}
"""Of z without the batch."""


class Cell(nn.Module):
    """tanh(W z + gain u + b) of the packed state, back in its shapes; u is an argument and ``gain`` is captured by the caller."""

    def __init__(self, shapes: tuple[tuple[int, ...], ...], seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.shapes, width = shapes, sum(map(prod, shapes))
        weight = torch.randn(width, width, generator=draw)
        self.weight = nn.Parameter(0.7 * weight / torch.linalg.matrix_norm(weight, 2))
        self.bias = nn.Parameter(0.3 * torch.randn(width, generator=draw))

    def forward(self, z: Tensor | tuple[Tensor, ...], u: Tensor, gain: Tensor | float = 1.0) -> Tensor | tuple[Tensor, ...]:
        return shaped(torch.tanh(packed(z) @ self.weight.T + gain * u + self.bias), self.shapes)


def packed(z: Tensor | tuple[Tensor, ...]) -> Tensor:
    parts = (z,) if isinstance(z, Tensor) else z
    return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1)


def shaped(rows: Tensor, shapes: tuple[tuple[int, ...], ...]) -> Tensor | tuple[Tensor, ...]:
    parts = rows.split([prod(shape) for shape in shapes], dim=1)
    tensors = tuple(part.reshape(len(part), *shape) for part, shape in zip(parts, shapes, strict=True))
    return tensors if len(shapes) > 1 else tensors[0]


def example(name: str = "rows", batch: int = 3) -> tuple[Cell, Tensor, Tensor | tuple[Tensor, ...]]:
    """A cell, its argument and a z0."""
    cell = Cell(SHAPES[name])
    width = len(cell.bias)
    return cell, torch.randn(batch, width, requires_grad=True), shaped(torch.zeros(batch, width), cell.shapes)


def value(z: Tensor | tuple[Tensor, ...]) -> Tensor:
    rows = packed(z)
    return (rows.sin() * torch.arange(1.0, rows.shape[1] + 1)).sum()


def solved(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The fixed point of a packed f with its graph: a Newton step by ``linalg.solve`` with the whole batch's Jacobian."""
    with torch.no_grad():
        for _ in range(200):
            z = f(z)
    flat = z.flatten()
    jacobian = jacrev(lambda flat: f(flat.view_as(z)).flatten())(flat)
    return (flat + torch.linalg.solve(torch.eye(len(flat)) - jacobian, f(z).flatten() - flat)).view_as(z)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_gradients_to_weights_arguments_and_what_is_captured_are_those_of_the_linear_system(name: str, training: bool) -> None:
    cell, u, z0 = example(name)
    gain = torch.rand(u.shape[1], requires_grad=True)
    deq = DEQ(lambda z, u: cell(z, u, gain), EXACT, EXACT).train(training)
    z, report = deq(u, z0=z0)
    exact = solved(lambda rows: packed(cell(shaped(rows, cell.shapes), u, gain)), packed(z0))
    torch.testing.assert_close(packed(z), exact, rtol=1e-11, atol=1e-12)
    wanted = (cell.weight, cell.bias, u, gain)
    ours, theirs = torch.autograd.grad(value(z), wanted), torch.autograd.grad(value(exact), wanted)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    assert min(gradient.abs().max() for gradient in ours) > 0.1
    assert bool(report.converged.all() and deq.adjoint.converged.all())
    if name != "two tensors":
        assert z.shape == z0.shape
    else:
        assert [part.shape for part in z] == [part.shape for part in z0]


@pytest.mark.parametrize("method", [Picard(), Anderson(1, 6), Broyden(20)])
def test_every_method_has_the_gradient(method) -> None:
    cell, u, z0 = example()
    solver = FixedPoint(method, 200, tol=1e-12)
    ours = torch.autograd.grad(value(DEQ(cell, solver, solver)(u, z0=z0)[0]), (cell.weight, u))
    theirs = torch.autograd.grad(value(solved(lambda z: cell(z, u), z0)), (cell.weight, u))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_truncated_backward_is_the_truncated_series(order: int) -> None:
    cell, u, z0 = example()
    deq = DEQ(cell, EXACT, Neumann(order))
    z, _ = deq(u, z0=z0)
    ours = torch.autograd.grad(value(z), cell.weight)[0]
    leaf = z.detach().requires_grad_()
    image = cell(leaf, u)
    (term,) = mu, *_ = torch.autograd.grad(value(leaf), leaf)
    for _ in range(order):
        (term,) = torch.autograd.grad(image, leaf, term, retain_graph=True)
        mu = mu + term
    torch.testing.assert_close(ours, torch.autograd.grad(image, cell.weight, mu)[0], rtol=1e-9, atol=1e-11)
    assert deq.adjoint is None


def test_one_deq_twice_in_a_network_has_the_gradient_of_the_composition() -> None:
    cell, u, z0 = example()
    deq = DEQ(cell, EXACT, EXACT)
    first, _ = deq(u, z0=z0)
    second, _ = deq(first, z0=first)
    exact = solved(lambda z: cell(z, u), z0)
    exact = solved(lambda z: cell(z, exact), z0)
    ours, theirs = (torch.autograd.grad(value(z), (cell.weight, u)) for z in (second, exact))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_the_cell_is_evaluated_once_a_step_and_once_with_a_graph() -> None:
    """The backward pass uses that graph: another evaluation could find other weights, or another dropout mask."""
    cell, u, z0 = example()
    calls: list[None] = []
    cell.register_forward_hook(lambda *_: calls.append(None))
    z, report = DEQ(cell)(u, z0=z0)
    value(z).backward()
    assert len(calls) == report.num_steps + 1


def test_other_weights_for_a_call_have_its_gradient() -> None:
    cell, u, z0 = example()
    other = {f"cell.{name}": tensor.detach().clone() * 0.9 for name, tensor in cell.named_parameters()}
    other["cell.weight"].requires_grad_()
    z, _ = functional_call(DEQ(cell, EXACT, EXACT), other, (u,), {"z0": z0})
    exact = solved(lambda z: torch.tanh(z @ other["cell.weight"].T + u + other["cell.bias"]), z0)
    ours, theirs = (torch.autograd.grad(value(z), other["cell.weight"])[0] for z in (z, exact))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_without_anything_to_differentiate_there_is_no_graph() -> None:
    cell, u, z0 = example()
    deq = DEQ(cell)
    with torch.no_grad():
        assert not deq(u, z0=z0)[0].requires_grad
    cell.requires_grad_(False)
    assert deq(u, z0=z0)[0].requires_grad and not deq(u.detach(), z0=z0)[0].requires_grad


def test_z0_has_no_gradient_and_may_come_from_anywhere() -> None:
    cell, u, _ = example()
    z0 = torch.randn(3, 5, requires_grad=True)
    z, _ = DEQ(cell)(u, z0=z0)
    assert torch.autograd.grad(z.sum(), z0, allow_unused=True) == (None,)
    with torch.inference_mode():
        z0, _ = DEQ(cell)(u, z0=torch.zeros(3, 5))
    z, report = DEQ(cell)(u, z0=z0)
    assert z.requires_grad and report.num_steps == 1


@pytest.mark.parametrize("name", ["rows", "two tensors"])
def test_a_warm_start_is_the_last_z(name: str) -> None:
    cell, u, z0 = example(name)
    deq = DEQ(cell)
    z, cold = deq(u, z0=z0)
    with torch.no_grad():
        cell.weight.mul_(1.001)
    _, warm = deq(u, z0=z)
    assert cold.num_steps >= 5 and warm.num_steps <= 3 and bool(warm.converged.all())


def test_the_report_is_of_each_sample() -> None:
    def cell(z: Tensor, slope: Tensor) -> Tensor:
        return slope * z + 1

    slope = torch.tensor([[0.1], [0.9], [torch.nan]])
    z, report = DEQ(cell, FixedPoint(Picard(), 12, tol=1e-6))(slope, z0=torch.zeros(3, 1))
    assert report.converged.tolist() == [True, False, False] and report.finite.tolist() == [True, True, False]
    assert z[0].item() == pytest.approx(1 / 0.9) and report.num_steps == 12
    last = (1 - 0.9**11) / 0.1
    assert report.residual[1].item() == pytest.approx(0.9**11 / (0.9 * last + 1))
    with pytest.raises(SolveError, match=r"2 of 3 samples are not solved to tol=1e-06 after 12 steps \(1 not finite"):
        report.require()
    _, report = DEQ(cell, FixedPoint(Picard(), 12))(slope[:2], z0=torch.zeros(2, 1))
    assert not report.converged.any() and report.require(tol=0.1) is report


def test_an_adjoint_that_has_not_converged_is_said() -> None:
    cell, u, z0 = example()
    short = DEQ(cell, EXACT, FixedPoint(Picard(), 3, tol=1e-6))
    with pytest.warns(RuntimeWarning, match="the backward solve has ended above its tolerance"):
        value(short(u, z0=z0)[0]).backward()
    assert short.adjoint.num_steps == 3 and not short.adjoint.converged.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value(DEQ(cell, EXACT, FixedPoint(Picard(), 3))(u, z0=z0)[0]).backward()
        value(DEQ(cell)(u, z0=z0)[0]).backward()


def test_the_jacobian_penalty_is_added_to_the_loss() -> None:
    cell, u, z0 = example()
    deq, probes = DEQ(cell), torch.randn(2, 3, 5)

    def parts() -> tuple[Tensor, Tensor]:
        z, _ = deq(u, z0=z0)
        return value(z), jacobian_penalty(deq.cell, z, u, probes)

    loss, penalty = parts()
    (loss + penalty).backward()
    apart = [torch.autograd.grad(part, cell.weight)[0] for part in parts()]
    torch.testing.assert_close(cell.weight.grad, sum(apart))
    assert apart[1].abs().max() > 1e-3


def test_under_autocast_the_state_stays_in_full_precision() -> None:
    cell, u, z0 = (part.float() for part in example())
    seen = []

    def watched(z: Tensor, u: Tensor) -> Tensor:
        seen.append((z.dtype, (z @ cell.weight.T).dtype))
        return cell(z, u).bfloat16()

    wanted = (cell.weight, cell.bias, u)
    full = torch.autograd.grad(value(DEQ(cell)(u, z0=z0)[0]), wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, _ = DEQ(watched, FixedPoint(Anderson(), 20, tol=1e-2), FixedPoint(Anderson(), 20, tol=1e-2))(u, z0=z0)
        low = torch.autograd.grad(value(z), wanted)
    assert z.dtype == torch.float32 and set(seen) == {(torch.float32, torch.bfloat16)}
    for ours, theirs in zip(low, full, strict=True):
        assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_second_derivatives_and_torch_func_are_refused() -> None:
    cell, u, z0 = example()
    deq = DEQ(cell)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(value(deq(u, z0=z0)[0]), u, create_graph=True)
    with pytest.raises(RuntimeError, match="a DEQ has no torch.func transforms"):
        torch.func.grad(lambda u: value(deq(u, z0=z0)[0]))(u)
    with pytest.raises(RuntimeError, match="a DEQ has no torch.func transforms"):
        torch.func.vmap(lambda u, z0: deq(u[None], z0=z0[None])[0])(u, z0)


@pytest.fixture
def compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_a_compiled_cell_has_the_gradient(compiler) -> None:
    """Although the solve goes back through its graph many times."""
    cell, u, z0 = example()
    ours, theirs = (DEQ(f)(u, z0=z0)[0] for f in (torch.compile(cell, backend="aot_eager"), cell))
    torch.testing.assert_close(*(torch.autograd.grad(value(z), (cell.weight, u)) for z in (ours, theirs)))


def test_in_a_compiled_network_the_deq_runs_as_it_is(compiler) -> None:
    """Between two graphs; one graph for all is refused."""
    cell, u, z0 = example()
    deq = DEQ(cell)

    def net(u: Tensor, z0: Tensor) -> Tensor:
        return deq(2 * u, z0=z0)[0].tanh()

    with pytest.raises(Exception, match="compiler.disable"):
        torch.compile(net, backend="eager", fullgraph=True)(u, z0)
    torch.compiler.reset()
    ours, theirs = torch.compile(net, backend="eager")(u, z0), net(u, z0)
    torch.testing.assert_close(*(torch.autograd.grad(value(z), (cell.weight, u)) for z in (ours, theirs)))


def test_it_has_no_state_of_its_own() -> None:
    cell, u, z0 = example()
    deq = DEQ(cell)
    assert set(deq.state_dict()) == {"cell.weight", "cell.bias"} and not DEQ(lambda z: z / 2).state_dict()
    value(deq(u, z0=z0)[0]).backward()
    other = copy.deepcopy(deq)
    with torch.no_grad():
        other.cell.weight.mul_(0.5)
    assert not other(u, z0=z0)[0].allclose(deq(u, z0=z0)[0])
    other.load_state_dict(deq.state_dict())
    assert other(u, z0=z0)[0].equal(deq(u, z0=z0)[0])


class Reads(TorchDispatchMode):
    """Counts the values that the host reads: on a GPU it would wait for each."""

    count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.count += operator is torch.ops.aten._local_scalar_dense.default
        return operator(*args, **(kwargs or {}))


def test_without_a_tolerance_the_host_waits_for_nothing() -> None:
    cell, u, z0 = example()
    counts = []
    for tol in (0.0, 1e-3):
        solver = FixedPoint(Anderson(memory=3), 6, tol)
        with Reads() as reads:
            z, _ = DEQ(cell, solver, solver)(u, z0=z0)
            torch.autograd.grad(value(z), cell.weight)
        counts.append(reads.count)
    assert counts[0] == 0 < counts[1]


def test_what_is_no_state_is_refused() -> None:
    cell, u, z0 = example("two tensors")
    with pytest.raises(ValueError, match=r"the cell has to return \(3, 7\), as z0 is, not \(3, 3\) and \(3, 2, 1, 2\)"):
        DEQ(lambda z, u: cell(shaped(z, cell.shapes), u))(u, z0=torch.zeros(3, 7))
    for wrong in (torch.zeros(()), torch.zeros(3, 7, dtype=torch.long), (torch.zeros(3, 3), torch.zeros(2, 4)), ()):
        with pytest.raises(ValueError, match="z0 has to be a tensor of real numbers, or a tuple of them"):
            DEQ(cell)(u, z0=wrong)


def gradients_of(net: nn.Module, u: Tensor) -> list[Tensor]:
    deq = net.module if isinstance(net, DistributedDataParallel) else net
    z, _ = net(u, z0=torch.zeros_like(u))
    z.square().mean().backward()
    return [weight.grad for weight in deq.parameters()]


def in_process(rank: int, folder: str) -> list[Tensor]:
    """What one of two processes has, with its half of the batch."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        half = torch.load(f"{folder}/batch.pt")[2 * rank : 2 * rank + 2]
        return gradients_of(DistributedDataParallel(DEQ(Cell(SHAPES["rows"]), EXACT, EXACT)), half)
    finally:
        dist.destroy_process_group()


def other_process(_: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.save(in_process(1, folder), f"{folder}/other.pt")
    # DDP keeps gloo's threads, also without its group. One that lets go of a tensor while Python ends aborts the process.
    os._exit(0)


def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    u = torch.randn(4, 5)
    torch.save(u, tmp_path / "batch.pt")
    other = torch.multiprocessing.spawn(other_process, (str(tmp_path),), join=False)
    here = in_process(0, str(tmp_path))
    while not other.join():
        pass
    whole = gradients_of(DEQ(Cell(SHAPES["rows"]), EXACT, EXACT), u)
    for gradients in (here, torch.load(tmp_path / "other.pt")):
        torch.testing.assert_close(gradients, whole, rtol=1e-10, atol=1e-12)
