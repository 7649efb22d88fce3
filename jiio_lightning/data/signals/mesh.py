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
ASIDE = np.array([1e-9, 2**0.5 * 1e-9, 0.0])
"""A ray goes a little aside of its point: one through an edge, as of a box and a grid, would cross two triangles or none."""


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
        a, b, c = self.triangles.transpose(1, 0, 2)
        self.area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        if not self.area.sum() > 0:
            raise DataError(f"{path} holds no triangle that has an area")
        self.closed = bool(self.mesh.is_watertight)
        self.oriented = self.closed and bool(self.mesh.is_winding_consistent)
        if not self.closed:
            warnings.warn(f"{path.name} has holes: a point is inside if rays along two of three axes say so", stacklevel=2)

    def inside(self, points: np.ndarray) -> np.ndarray:
        """bool ``(N,)`` of points ``(N, 3)``: from the triangles above a point.

        Of a mesh whose triangles face one way it counts how often the surface goes round the point, so that bodies may overlap;
        of others whether the number of triangles is odd.
        """
        if self.oriented:
            return self._rays[0](points)[1] != 0
        odd = [rays(points)[0] % 2 for rays in self._rays]
        return odd[0] == 1 if self.closed else sum(odd) >= 2

    def surface(self, count: int, draw: np.random.Generator) -> np.ndarray:
        """Points ``(count, 3)`` on the triangles, uniform by area."""
        a, b, c = self.triangles.transpose(1, 0, 2)
        chosen = draw.choice(len(self.area), count, p=self.area / self.area.sum())
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

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many triangles lie above each point ``(N, 3)``, and how many of them face up more than down; int64 each."""
        points = np.roll(points, 2 - self.axis, axis=1) + ASIDE
        row, column = self._bin(points[:, :2]).T
        key = row * BINS + column
        count = self.first[key + 1] - self.first[key]
        point = np.repeat(np.arange(len(points)), count)
        place = np.arange(len(point)) - np.repeat(np.cumsum(count) - count, count)
        triangle = self.owner[self.first[key][point] + place]
        facing = _above(points[point], self.triangles[triangle])
        counts = [np.bincount(point, weights, len(points)) for weights in (np.abs(facing), facing)]
        return counts[0].astype(int), counts[1].astype(int)

    @staticmethod
    def _bin(places: np.ndarray) -> np.ndarray:
        return np.clip(((places + 1) / 2 * BINS).astype(int), 0, BINS - 1)


def _above(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """+-1, the way it faces, where the ray from a point ``(M, 3)`` upwards meets its triangle ``(M, 3, 3)``; else 0."""
    corners = triangles[:, :, :2] - points[:, None, :2]
    height = triangles[:, :, 2] - points[:, None, 2]
    following = np.roll(corners, -1, axis=1)
    edge = corners[..., 0] * following[..., 1] - corners[..., 1] * following[..., 0]  # (M, 3): twice the areas opposite a corner
    weight = np.roll(edge, -1, axis=1)  # of corner i: the edge between the other two
    within = (edge > 0).all(1) | (edge < 0).all(1)
    facing = np.sign(weight.sum(1))
    return facing * (within & ((weight * height).sum(1) * facing > 0))
