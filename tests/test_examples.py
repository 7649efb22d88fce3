"""The examples run, find what they say, and stay short."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

import pytest
import torch
from PIL import Image

from tests.conftest import REPO

EXAMPLES = sorted(REPO.glob("examples/*.py"))


@pytest.fixture
def example(monkeypatch):
    """Imports one by its name, as Python finds it when it runs it."""
    monkeypatch.syspath_prepend(REPO / "examples")

    def load(name: str) -> ModuleType:
        return import_module(name)

    yield load
    for path in EXAMPLES:
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 60 and f"python examples/{path.name}" in path.read_text()


def test_a_generator(example, tmp_path):
    """A tenth of its run."""
    assert example("generator").main(tmp_path, steps=28) < 0.9
    assert Image.open(tmp_path / "reconstructions.png").size == (10 * 34 + 2, 2 * 34 + 2)
    assert Image.open(tmp_path / "samples.png").size == (10 * 34 + 2, 10 * 34 + 2)


def test_an_operator(example, tmp_path):
    ours, _ = example("own_operator").main(tmp_path, steps=28)
    assert ours > 8
    assert Image.open(tmp_path / "tomography.png").size == (10 * 34 + 2, 3 * 34 + 2)


def test_what_the_operator_shows_has_the_same_sums(example, tmp_path):
    project, image = example("own_operator").Projections().project, torch.rand(3, 1, 8, 8)
    measured = example("own_operator").Projections()(image, [torch.Generator()] * 3)
    assert torch.allclose(project(measured.shown), measured.y, atol=1e-6)


def test_a_classifier(example):
    accuracy = example("own_classifier").main()
    assert accuracy["clean"] > 0.85 and max(accuracy["PGD"], accuracy["joint"]) < 0.5


def test_a_problem(example):
    ours, mean = example("own_problem").main(steps=150)
    assert ours < 0.8 * mean


def test_a_solver(example, tmp_path):
    costs = example("own_solver").main(tmp_path, rounds=1)
    assert all(many < few for few, *_, many in costs.values()) and len(costs) == 3
    assert (tmp_path / "own_solver.png").is_file()
