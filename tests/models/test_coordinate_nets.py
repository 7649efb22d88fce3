from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from jiio_lightning.core.layers import Layers
from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.models import IMFN, ISIREN, MFN, SIREN, FourierFeatures, InjectedSIREN

EXACT = FixedPoint(Picard(), 300, tol=1e-13)


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("net", "weights"),
    [
        (MFN(), 68_099),
        (MFN(filters="gabor"), 69_635),
        (MFN(layers=4), 267_779),
        (MFN(width=512), 267_267),
        (FourierFeatures(), 263_683),
        (IMFN(), 68_099),
    ],
)
def test_the_nets_have_the_papers_sizes(net: nn.Module, weights: int):
    assert count(net) == weights


def test_an_explicit_mfn_is_its_equations():
    net = MFN(dims=2, channels=3, width=7, layers=2, scale=5.0, filters="gabor").double()
    c = torch.rand(11, 2).double() * 2 - 1

    def g(place: int) -> Tensor:
        part = net.filters[place]
        distance = torch.cdist(c, part.centre).square()
        return (c @ part.phase.weight.T + part.phase.bias).sin() * (-part.gamma.abs() / 2 * distance).exp()

    z = g(0)
    for place, linear in enumerate(net.linears, start=1):
        z = (z @ linear.weight.T + linear.bias) * g(place)
    torch.testing.assert_close(net.values(c, solve=None), z @ net.head.weight.T + net.head.bias)


def test_an_explicit_siren_with_injection_is_its_equations():
    net = InjectedSIREN(dims=1, channels=1, width=7, layers=3, scale=5.0).double()
    c = torch.rand(11, 1).double()
    first, *others = net.filters
    z = (c @ first.phase.weight.T + first.phase.bias).sin()
    for linear, injected in zip(net.linears, others, strict=True):
        z = (z @ linear.weight.T + linear.bias + c @ injected.weight.T + injected.bias).sin()
    torch.testing.assert_close(net.values(c, solve=None), z @ net.head.weight.T + net.head.bias)


def test_frequencies_of_l_layers_are_divided_by_the_root_of_l_plus_1():
    for layers in (1, 4):
        largest = max(
            float(part.phase.weight.detach().abs().max()) for part in MFN(width=512, layers=layers, scale=100.0).filters
        )
        assert largest == pytest.approx(100 / math.sqrt(2 * (layers + 1)), rel=0.02)


def exact_equilibrium(net: IMFN, c: Tensor) -> Tensor:
    """One layer is affine in z: (I - diag(g1) W) z = g1 * (W g0 + b)."""
    g0, g1 = net.inject(c).chunk(2, dim=1)
    weight, bias = net.linears[0].weight, net.linears[0].bias
    system = torch.eye(net.width) - g1.unsqueeze(2) * weight
    return torch.linalg.solve(system, g1 * (g0 @ weight.T + bias))


@pytest.mark.parametrize("filters", ["fourier", "gabor"])
def test_one_implicit_layer_is_a_linear_system(filters: str):
    torch.set_default_dtype(torch.float64)
    try:
        net, c = IMFN(width=9, scale=6.0, filters=filters), torch.rand(5, 2) * 2 - 1
        layers = Layers(EXACT, EXACT)
        weights = [parameter for parameter in net.parameters() if parameter.requires_grad]
        target = torch.randn(5, 3)

        def gradients(values: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad((values - target).square().sum(), weights)

        solved, exact = net.values(c, layers), net.h(exact_equilibrium(net, c))
        torch.testing.assert_close(solved, exact, rtol=1e-10, atol=1e-11)
        for ours, theirs in zip(gradients(solved), gradients(exact), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("net", [IMFN(width=8, layers=3), ISIREN(width=8, layers=1), ISIREN(width=8, layers=3)])
def test_an_implicit_net_has_one_equilibrium(net: nn.Module):
    x = net.inject(torch.rand(5, 2))
    ends = [EXACT(lambda z: net.f(z, x), z0).value for z0 in (torch.zeros(5, 8), 3 * torch.randn(5, 8))]
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


def test_siren_is_its_equations():
    net, c = SIREN(dims=2, channels=1, width=6, layers=2, omega=30.0), torch.rand(4, 2)
    h = (30 * (c @ net.hidden[0].weight.T + net.hidden[0].bias)).sin()
    h = (30 * (h @ net.hidden[1].weight.T + net.hidden[1].bias)).sin()
    torch.testing.assert_close(net.values(c, solve=None), h @ net.head.weight.T + net.head.bias)


def test_fourier_features_are_those_of_coordinates_in_0_1():
    """sin(2 pi B c) at c in [0, 1] is sin(pi B c) at 2 c - 1, up to a phase that the network cannot tell."""
    net = FourierFeatures(dims=1, channels=1, sigma=3.0)
    a, b = torch.tensor([[0.2]]), torch.tensor([[0.7]])
    ours = math.pi * (2 * b - 1 - (2 * a - 1)) @ net.basis.mT
    torch.testing.assert_close(ours, 2 * math.pi * (b - a) @ net.basis.mT)
    assert net.basis.std() == pytest.approx(3.0, rel=0.2) and "basis" in net.state_dict()


@pytest.mark.parametrize(
    "net",
    [MFN(scale=300.0), InjectedSIREN(scale=300.0), SIREN(omega=300.0), FourierFeatures(sigma=100.0)],
    ids=lambda net: type(net).__name__,
)
def test_phases_are_in_float32_in_mixed_precision(net: nn.Module):
    c = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    exact = net.values(c, solve=None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = net.values(c, solve=None)
    assert (mixed - exact).square().mean() < 1e-3 * exact.var()


def test_a_cell_without_a_layer_is_refused():
    for bad in ({"layers": 0}, {"bound": -1.0}):
        with pytest.raises(ValueError, match="layers >= 1 and bound > 0"):
            IMFN(**bad)
