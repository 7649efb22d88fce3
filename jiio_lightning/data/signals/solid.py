"""The inside of a solid as a signal: 0 outside, 1 inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.signals.base import SignalBatch, SignalData, file_at, needs
from jiio_lightning.data.signals.mesh import MeshSolid
from jiio_lightning.models.grid import grid
from jiio_lightning.randomness import DataStream, generator

NEAR = 1e-3
"""Standard deviation of the distance of hard test points from the surface (the paper)."""


class Solid(Protocol):
    """What is inside, in [-1, 1]^3."""

    def inside(self, points: np.ndarray) -> np.ndarray:
        """bool ``(N,)`` of points ``(N, 3)``."""

    def surface(self, count: int, draw: np.random.Generator) -> np.ndarray:
        """Points on the surface ``(count, 3)``."""


@dataclass(frozen=True)
class Analytic:
    """Where a function of the coordinates is negative."""

    function: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

    def inside(self, points: np.ndarray) -> np.ndarray:
        return self.function(*points.T) < 0

    def surface(self, count: int, draw: np.random.Generator) -> np.ndarray:
        """Where segments between random points, one inside and one outside, meet it; not uniform by area."""
        low, high = np.zeros((0, 3)), np.zeros((0, 3))
        while len(low) < count:
            pair = draw.uniform(-1, 1, (2, count, 3))
            sides = [self.inside(points) for points in pair]
            crossing = sides[0] & ~sides[1]
            low, high = (np.concatenate([kept, new[crossing]]) for kept, new in zip((low, high), pair, strict=True))
        low, high = low[:count], high[:count]
        for _ in range(40):
            middle = (low + high) / 2
            within = self.inside(middle)[:, None]
            low, high = np.where(within, middle, low), np.where(within, high, middle)
        return low


def _torus(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return (np.hypot(x, y) - 0.6) ** 2 + z**2 - 0.25**2


def _gyroid(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    sheet = np.abs(np.sin(7 * x) * np.cos(7 * y) + np.sin(7 * y) * np.cos(7 * z) + np.sin(7 * z) * np.cos(7 * x)) - 0.5
    return np.maximum(sheet, x**2 + y**2 + z**2 - 0.8**2)


def _csg(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A rounded cube without three bars."""
    body = np.maximum(np.maximum(np.abs(x), np.abs(y)), np.abs(z)) - 0.6
    body = np.maximum(body, np.sqrt(x**2 + y**2 + z**2) - 0.8)
    bars = np.minimum(np.minimum(np.hypot(x, y), np.hypot(y, z)), np.hypot(z, x)) - 0.3
    return np.maximum(body, -bars)


SOLIDS = {"torus": Analytic(_torus), "gyroid": Analytic(_gyroid), "csg": Analytic(_csg)}


@dataclass(kw_only=True, eq=False)
class SolidSignal(SignalData):
    """Occupancy of an analytic solid, or of a mesh (OBJ, PLY, STL, OFF; also gzipped), scaled into [-0.9, 0.9]^3.

    A training batch is new points, uniform in [-1, 1]^3. Test points are ``easy`` (uniform) and ``hard`` (near the surface).

    Args:
        path: of a mesh; an analytic solid without one.
        solid: the analytic one.
        batch_size: points of a step (the paper: 50,000).
        test_points: of each kind (the paper: 2^20).
        cells: of the grid along each axis from which ``jiio predict`` makes a mesh, before ``zoom``.
        mesh_format: of that mesh.
    """

    solid: Literal["torus", "gyroid", "csg"] = "csg"
    batch_size: PositiveInt = 50_000
    test_points: PositiveInt = 2**14
    cells: PositiveInt = 64
    mesh_format: Literal["ply", "obj"] = "ply"

    occupancy: ClassVar[bool] = True

    @cached_property
    def shape_of(self) -> Solid:
        """The solid itself."""
        return SOLIDS[self.solid] if self.path is None else MeshSolid(file_at(self.path, "a mesh"))

    @property
    def channels(self) -> int:
        return 1

    @property
    def grid_shape(self) -> tuple[int, ...]:
        return (self.cells,) * 3

    @property
    def identity(self) -> tuple[np.ndarray, ...]:
        return (self.batch(0).values.numpy(),)

    def batch(self, number: int) -> SignalBatch:
        return self._at(generator(self.seed, DataStream.POINTS, number).uniform(-1, 1, (self.batch_size, 3)))

    def held(self, stage: str) -> list[SignalBatch]:
        return self._test

    def view(self) -> SignalBatch:
        c = grid((self.cells, self.cells))
        middle = torch.cat([c, torch.zeros(len(c), 1)], dim=1)
        return self._at(middle.double().numpy())._replace(shape=(self.cells, self.cells))

    def write(self, values: Tensor, folder: Path) -> Path:
        measure, trimesh = needs("skimage.measure"), needs("trimesh")
        field = torch.nn.functional.pad(values[..., 0], [1] * 6, value=-1.0).numpy()  # closed at the walls
        if field.max() <= 0:
            raise DataError("the representation is empty everywhere: train it for longer")
        corners, faces, _, _ = measure.marching_cubes(field, level=0.0, gradient_direction="ascent")  # high inside
        path = folder / f"reconstruction.{self.mesh_format}"
        trimesh.Trimesh((2 * (corners - 1) + 1) / np.array(values.shape[:3]) - 1, faces).export(path)
        return path

    @cached_property
    def _test(self) -> list[SignalBatch]:
        draw = generator(self.seed, DataStream.HELD_OUT)
        easy = draw.uniform(-1, 1, (self.test_points, 3))
        hard = self.shape_of.surface(self.test_points, draw) + draw.normal(0, NEAR, (self.test_points, 3))
        return [self._at(easy, "easy"), self._at(hard, "hard")]

    def _at(self, points: np.ndarray, part: str = "") -> SignalBatch:
        c = torch.from_numpy(points.astype(np.float32))
        inside = torch.from_numpy(self.shape_of.inside(c.double().numpy())).float().unsqueeze(1)
        return SignalBatch(c, inside, torch.zeros(0, dtype=torch.int64), 0, (), True, part)
