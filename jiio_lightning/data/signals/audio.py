"""A recording as a signal."""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from scipy.io import wavfile
from scipy.signal import resample_poly
from torch import Tensor

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.signals.base import GridSignal, file_at

LOUDEST = 2.0
"""Peak of a recording of floats: what is above 1 is clipped, what is far above is on another scale."""


@dataclass(kw_only=True, eq=False)
class AudioSignal(GridSignal):
    """A WAV file of integers or floats, its channels averaged, its time over [-1, 1]; without a path a chirp of one second.

    Args:
        rate: samples a second that a recording of more is reduced to; by default its own.
        seconds: the first so many; by default all.

    Example:
        >>> data = AudioSignal(rate=8000, seconds=0.5)
        >>> data.batch(0).c.shape, data.batch(0).values.abs().max().item() <= 1
        (torch.Size([4000, 1]), True)
    """

    rate: PositiveInt | None = None
    seconds: PositiveFloat | None = None

    @cached_property
    def recording(self) -> tuple[int, np.ndarray]:
        """Samples a second, and the samples ``(N,)`` in [-1, 1]."""
        rate, samples = chirp() if self.path is None else read_wav(file_at(self.path, "a WAV file"))
        if self.seconds is not None:
            samples = samples[: round(self.seconds * rate)]
        if self.rate is not None and self.rate < rate:
            share = Fraction(self.rate, rate)
            samples, rate = resample_poly(samples, share.numerator, share.denominator), self.rate
        return rate, samples

    def read(self) -> Tensor:
        return torch.from_numpy(np.clip(self.recording[1], -1, 1)).float().unsqueeze(1)

    def write(self, values: Tensor, folder: Path) -> Path:
        path = folder / "reconstruction.wav"
        rate = round(self.recording[0] * len(values) / len(self.values))
        wavfile.write(path, rate, values.clamp(-1, 1).numpy())
        return path


def chirp(rate: int = 16_000) -> tuple[int, np.ndarray]:
    """A tone that rises from 100 to 2,000 Hz in a second."""
    t = np.arange(rate) / rate
    return rate, 0.5 * np.sin(2 * np.pi * (100 * t + 950 * t**2))


def read_wav(path: Path) -> tuple[int, np.ndarray]:
    """Samples a second, and the samples ``(N,)`` in [-1, 1] as float64."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of chunks with the name of the song
            warnings.filterwarnings("error", "Reached EOF", wavfile.WavFileWarning)
            rate, samples = wavfile.read(path)
    except (ValueError, OSError, EOFError, ZeroDivisionError, struct.error, wavfile.WavFileWarning) as error:
        raise DataError(f"{path} is not a WAV file that can be read: {error}") from error
    if not samples.size:
        raise DataError(f"{path} holds no samples")
    if samples.dtype.kind == "u":  # 8 bits: the middle is silence
        samples = samples / 128.0 - 1
    elif samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    elif not np.abs(samples).max() <= LOUDEST:
        raise DataError(
            f"{path} has samples of up to {np.abs(samples).max():g}: divide them by their peak, floats are in [-1, 1]"
        )
    return rate, samples.astype(np.float64).reshape(len(samples), -1).mean(axis=1)
