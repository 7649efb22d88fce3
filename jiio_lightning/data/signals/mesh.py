"""Which points are inside of a mesh: by counting the triangles that a ray from each crosses."""

from __future__ import annotations

import gzip
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.signals.base import needs

BINS = 256
"""Along each side of the grid that the triangles are sorted into."""


class MeshSolid:
    """The inside of a mesh file, which is scaled into [-0.9, 0.9]^3.

    Args:
        path: of an OBJ, PLY, STL, OFF ... file, also gzipped.

    Raises:
        DataError: if it is no mesh.
    """

    def __init__(self, path: Path) -> None:
        trimesh = needs("trimesh")
        try:
            read, name = (gzip.open, path.with_suffix("")) if path.suffix == ".gz" else (open, path)
            with read(path, "rb") as file:
                self.mesh: Any = trimesh.load(file, file_type=name.suffix[1:].lower(), force="mesh", process=True)
            triangles = np.asarray(self.mesh.triangles, dtype=np.float64)
        except Exception as error:  # trimesh's readers raise whatever their parser runs into
            raise DataError(f"{path} is not a mesh that can be read: {error}") from error
        if not len(triangles):
            raise DataError(f"{path} holds no triangles")
        low, high = triangles.min((0, 1)), triangles.max((0, 1))
        self.scale, self.centre = 1.8 / max(float((high - low).max()), 1e-30), (low + high) / 2
        self.triangles = (triangles - self.centre) * self.scale  # (F, 3, 3)
        self.closed = bool(self.mesh.is_watertight)
        if not self.closed:
            warnings.warn(f"{path.name} has holes: a point is inside if rays along two of three axes say so", stacklevel=2)

    def inside(self, points: np.ndarray) -> np.ndarray:
        """bool ``(N,)`` of points ``(N, 3)``: an odd number of triangles lies above a point."""
        if self.closed:
            return self._rays[0](points)
        return sum(rays(points).astype(int) for rays in self._rays) >= 2

    def surface(self, count: int, draw: np.random.Generator) -> np.ndarray:
        """Points ``(count, 3)`` on the triangles, uniform by area."""
        a, b, c = self.triangles.transpose(1, 0, 2)
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        chosen = draw.choice(len(area), count, p=area / area.sum())
        u, v = draw.random((2, count, 1))
        u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
        return a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]

    @cached_property
    def _rays(self) -> list[Rays]:
        axes = (2,) if self.closed else (2, 0, 1)
        return [Rays(np.roll(self.triangles, 2 - axis, axis=2), axis) for axis in axes]


class Rays:
    """Rays along one axis through triangles ``(F, 3, 3)``, whose columns have been rolled so that this axis is the last."""

    def __init__(self, triangles: np.ndarray, axis: int) -> None:
        self.axis = axis
        low, high = (self._bin(ends) for ends in (triangles[:, :, :2].min(1), triangles[:, :, :2].max(1)))
        wide = high - low + 1  # bins that a triangle touches
        count = wide.prod(1)
        owner = np.repeat(np.arange(len(triangles)), count)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        row, column = low[owner, 0] + place // wide[owner, 1], low[owner, 1] + place % wide[owner, 1]
        key = row * BINS + column
        order = np.argsort(key, kind="stable")
        self.owner = owner[order]  # triangles, bin after bin
        self.first = np.searchsorted(key[order], np.arange(BINS**2 + 1))
        self.triangles = triangles

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Whether an odd number of triangles lies above each point ``(N, 3)``."""
        points = np.roll(points, 2 - self.axis, axis=1)
        row, column = self._bin(points[:, :2]).T
        key = row * BINS + column
        count = self.first[key + 1] - self.first[key]
        point = np.repeat(np.arange(len(points)), count)
        place = np.arange(len(point)) - np.repeat(np.cumsum(count) - count, count)
        triangle = self.owner[self.first[key][point] + place]
        crossed = _above(points[point], self.triangles[triangle])
        return np.bincount(point[crossed], minlength=len(points)) % 2 == 1

    @staticmethod
    def _bin(places: np.ndarray) -> np.ndarray:
        return np.clip(((places + 1) / 2 * BINS).astype(int), 0, BINS - 1)


def _above(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Whether the ray from each point ``(M, 3)`` in the last direction crosses its triangle ``(M, 3, 3)``."""
    corners = triangles[:, :, :2] - points[:, None, :2]
    height = triangles[:, :, 2] - points[:, None, 2]
    following = np.roll(corners, -1, axis=1)
    edge = corners[..., 0] * following[..., 1] - corners[..., 1] * following[..., 0]  # (M, 3): twice the areas opposite a corner
    weight = np.roll(edge, -1, axis=1)  # of corner i: the edge between the other two
    within = (edge > 0).all(1) | (edge < 0).all(1)
    return within & ((weight * height).sum(1) * np.sign(weight.sum(1)) > 0)
