"""The README keeps its word: its example runs and is right, the files and make targets that it names exist."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def example(number: int = 0) -> str:
    return re.findall(r"```python\n(.*?)```", README, re.S)[number]


def optimum(W, U, y):
    """min_x |z*(x) - y|^2 in closed form for z = W z + U x: the mean over the batch."""
    reach = torch.linalg.solve(torch.eye(len(W)) - W, U)
    x = torch.linalg.lstsq(reach, y.T).solution.T
    return (x @ reach.T - y).square().sum(dim=1).mean(), x


def test_the_library_example_reaches_the_closed_form():
    torch.manual_seed(0)
    scope: dict = {}
    exec(example(), scope)
    W, U, y = (scope[name].detach() for name in ("W", "U", "y"))
    best, x = optimum(W, U, y)
    assert scope["solution"].v.x.sub(x).norm() < 1e-3 * x.norm()
    assert scope["solution"].cost.mean() == pytest.approx(best.item(), rel=1e-5)


def test_the_library_example_gives_the_gradient_of_the_optimum():
    torch.manual_seed(0)
    scope: dict = {}
    exec(example(), scope)
    W, U = (scope[name].detach().double().requires_grad_() for name in ("W", "U"))
    best, _ = optimum(W, U, scope["y"].double())
    for weight, expected in zip((scope["W"], scope["U"]), torch.autograd.grad(best, (W, U)), strict=True):
        assert (weight.grad - expected).norm() < 1e-3 * expected.norm()


def test_the_layer_example_is_solved_forwards_and_backwards():
    torch.manual_seed(0)
    scope: dict = {}
    exec(example() + example(1), scope)
    assert scope["report"].converged.all() and scope["deq"].adjoint.converged.all()
    assert scope["linear"].weight.grad.norm() > 0


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\b(?:conf|tasks)/[\w/.]+\.yaml", README))))
def test_the_files_it_names_exist(path):
    assert (ROOT / path).is_file()


def test_the_pictures_and_links_it_shows_exist():
    for link in re.findall(r"\]\(([\w/.-]+)\)", README):
        assert (ROOT / link).is_file(), link


def test_its_commands_are_make_targets():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    named = {re.sub(r"^reproduce-(table|fig|all).*", "reproduce-", name) for name in re.findall(r"`make ([\w-]+)`", README)}
    assert named <= {*targets, "reproduce-"} and "reproduce-%:" in (ROOT / "Makefile").read_text()
