from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jiio_lightning.core.solvers import Broyden, FixedPoint, Last, Picard
from tests.core.solvers.test_anderson import rotation
from tests.core.solvers.test_base import affine, apply


def dense_path(matrix: Tensor, offset: Tensor, v: Tensor, steps: int, memory: int) -> list[Tensor]:
    """Broyden's good method for one sample with the inverse Jacobian as a dense matrix, restarted every ``memory`` updates."""
    eye = torch.eye(len(v))
    inverse, path, updates = -eye, [v], 0
    gap = matrix @ v + offset - v
    for _ in range(steps):
        after = v - inverse @ gap
        new = matrix @ after + offset - after
        move, turn = after - v, new - gap
        if updates and updates % memory == 0:
            inverse = -eye
        inverse = inverse + torch.outer(move - inverse @ turn, move @ inverse) / (move @ inverse @ turn)
        v, gap, updates = after, new, updates + 1
        path.append(v)
    return path


@pytest.mark.parametrize("memory", [2, 3, 20])
def test_it_is_the_dense_method_also_after_a_restart(memory: int) -> None:
    matrix, offset, _ = affine(batch=2, width=6, norm=0.9)
    seen: list[Tensor] = []
    method, v = Broyden(memory), torch.zeros(2, 6)
    state = method.init(v)
    for _ in range(9):
        seen.append(v)
        v, state = method.step(v, apply(matrix, offset, v), state)
    for row in range(2):
        expected = dense_path(matrix[row], offset[row], torch.zeros(6), 8, memory)
        torch.testing.assert_close(torch.stack([u[row] for u in seen]), torch.stack(expected), rtol=1e-7, atol=1e-8)


def test_it_solves_a_rotation_on_which_picard_fails() -> None:
    matrix, offset = rotation(2.0, 1.2), torch.randn(3, 2)
    fixed = torch.linalg.solve(torch.eye(2) - matrix, offset.T).T
    solution = FixedPoint(Broyden(10), 15)(lambda v: v @ matrix.T + offset, torch.zeros(3, 2))
    torch.testing.assert_close(solution.value, fixed, rtol=0, atol=1e-9)
    plain = FixedPoint(Picard(), 15, selection=Last())(lambda v: v @ matrix.T + offset, torch.zeros(3, 2))
    assert float((plain.value - fixed).norm(dim=1).min()) > 0.1


def test_an_affine_map_is_solved_in_twice_its_width() -> None:
    matrix, offset, fixed = affine(norm=0.95)
    solution = FixedPoint(Broyden(20), 12)(lambda v: apply(matrix, offset, v), torch.zeros(4, 5))
    torch.testing.assert_close(solution.value, fixed, rtol=0, atol=1e-8)


def test_a_sample_whose_update_is_not_to_be_trusted_leaves_it_out() -> None:
    """Sample 1 stays where it is, so that its s and y are 0/0."""
    matrix, offset, _ = affine()
    paths = []
    for stuck in (False, True):
        method, v, path = Broyden(5), torch.zeros(4, 5), []
        state = method.init(v)
        for _ in range(6):
            image = apply(matrix, offset, v)
            v, state = method.step(v, torch.cat([image[:1], v[1:2], image[2:]]) if stuck else image, state)
            path.append(v)
        paths.append(torch.stack(path))
    others = torch.tensor([0, 2, 3])
    assert torch.equal(paths[0][:, others], paths[1][:, others])
    assert not paths[1][:, 1].any()


def test_no_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="memory"):
        Broyden(0)
