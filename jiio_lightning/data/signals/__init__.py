"""Single signals, for implicit representations: an image, a recording, a video, a solid."""

from jiio_lightning.data.signals.audio import AudioSignal
from jiio_lightning.data.signals.base import GridSignal, SignalBatch, SignalData
from jiio_lightning.data.signals.image import ImageSignal
from jiio_lightning.data.signals.solid import SolidSignal
from jiio_lightning.data.signals.video import VideoSignal

__all__ = ["AudioSignal", "GridSignal", "ImageSignal", "SignalBatch", "SignalData", "SolidSignal", "VideoSignal"]
