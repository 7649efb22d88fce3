"""Autoencoders as a task: their gradient, their noise, their checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.baselines import (
    Autoencoding,
    ConvDecoder,
    ConvEncoder,
    Deterministic,
    ExplicitGenerator,
    MDEQEncoder,
    Unregularised,
    Variational,
)
from jiio_lightning.callbacks import JacobianRegularization
from jiio_lightning.core.inner import SolveError
from jiio_lightning.core.operators import PixelMask
from jiio_lightning.core.solvers import Anderson, FixedPoint
from jiio_lightning.data import ImageBatch
from jiio_lightning.models import LatentGenerator
from jiio_lightning.randomness import SampleStream, sample_generators
from jiio_lightning.tasks import Generation
from tests.conftest import metrics

SHAPE = (1, 8, 8)
TIGHT = FixedPoint(Anderson(memory=6), 300, 1e-12)


def batch(size: int = 3, dtype: torch.dtype = torch.float32) -> ImageBatch:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(size, *SHAPE, generator=generator, dtype=dtype) * 2 - 1
    return ImageBatch(image, torch.zeros(size, dtype=torch.long), torch.arange(size))


def quiet(model: Autoencoding) -> Autoencoding:
    model.log = lambda *args, **kwargs: None
    return model


def conv(variational: bool = False, **options) -> Autoencoding:
    torch.manual_seed(0)
    encoder = ConvEncoder(3, SHAPE, 2, variational=variational)
    return quiet(Autoencoding(encoder, ExplicitGenerator(ConvDecoder(3, SHAPE, 2)), **options))


def mdeq(variational: bool = True, **options) -> Autoencoding:
    torch.manual_seed(0)
    encoder = MDEQEncoder(3, (8, 8), SHAPE, variational, expansion=1, head_width=2, features=8)
    regularizer = Variational(0.5) if variational else Unregularised()
    return quiet(Autoencoding(encoder, LatentGenerator(3, (8, 8), SHAPE, expansion=1), regularizer, **options))


def slope_along(model: Autoencoding, given: ImageBatch, parts: list[torch.Tensor], step: float) -> tuple[float, float]:
    """training_step's derivative along one direction in the weights, and the central difference that solves everything again."""
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(part.shape, generator=generator, dtype=part.dtype) for part in parts]
    gradients = torch.autograd.grad(model.training_step(given, 0), parts)
    slope = sum(float((gradient * way).sum()) for gradient, way in zip(gradients, directions, strict=True))

    @torch.no_grad()
    def loss(length: float) -> float:
        torch._foreach_add_(parts, directions, alpha=length)
        value = float(model.training_step(given, 0))
        torch._foreach_add_(parts, directions, alpha=-length)
        return value

    return slope, (loss(step) - loss(-step)) / (2 * step)


def test_the_gradient_of_an_mdeq_vae():
    """Through the decoder's equilibrium, the reparametrised latent, and the encoder's equilibrium."""
    model = mdeq(forward=TIGHT, backward=TIGHT).double()
    given = batch(2, torch.float64)
    for part in (model.net, model.encoder):
        slope, difference = slope_along(model, given, list(part.parameters()), 1e-6)
        assert slope == pytest.approx(difference, rel=1e-4) and abs(slope) > 1e-3


def test_the_training_loss_is_error_and_costs_per_pixel():
    model = conv(latent_regularizer=Deterministic(latent=0.3, decoder=0.01)).eval()
    given = batch()
    metrics, latent, image = model.evaluate(given)
    wanted = (image - given.image).square().mean() + 0.15 * latent.square().sum(dim=1).mean() / 64
    wanted = wanted + model.latent_regularizer.decoder_cost(model.net) / 64
    assert model.training_step(given, 0).item() == pytest.approx(wanted.item(), rel=1e-5)
    assert metrics["error"].mean().item() == pytest.approx((image - given.image).square().mean().item(), rel=1e-5)


def test_evaluation_decodes_the_mean_at_tight_equilibria():
    model = mdeq().eval()
    given = batch()
    metrics, latent, image = model.evaluate(given)
    assert metrics["resolve_residual"].max() < 1e-4 and {"error", "psnr", "latent_cost"} <= set(metrics)
    assert model.encode(given).equal(latent) and torch.allclose(model.decode(latent), image, atol=1e-4)
    assert model.reconstruct(given).equal(image)
    returned = model.test_step(given, 0)
    assert all(value.shape == (3,) for value in returned.values()) and returned["index"].equal(given.index)


def test_a_training_step_of_a_vae_is_a_function_of_its_step():
    model, given = conv(True, latent_regularizer=Variational(1.0)).eval(), batch()
    first = model.training_step(given, 0).item()
    code = model.encoder(given.image, None)
    x = model.latent_regularizer.latent(code, sample_generators(0, 0, given.index, SampleStream.LATENT))
    wanted = (model.net.decoder(x) - given.image).square().mean() + model.latent_regularizer.cost(code).mean() / 64
    assert first == pytest.approx(wanted.item(), rel=1e-5) and model.normal_latents and not conv().normal_latents
    torch.manual_seed(7)
    assert model.training_step(given, 0).item() == first
    type(model).global_step, before = property(lambda self: 1), type(model).global_step
    try:
        assert model.training_step(given, 0).item() != first
    finally:
        type(model).global_step = before


def test_the_jacobian_penalty_sees_both_equilibria():
    model, given = mdeq(False), batch()
    without = model.training_step(given, 0)
    JacobianRegularization(0.0, 1).setup(None, model, "fit")
    assert model.training_step(given, 0).equal(without)
    values = []
    for coefficient, mode in ((1.0, 0.0), (2.0, 0.0), (0.0, 1.0)):
        JacobianRegularization(coefficient, 1, mode).setup(None, model, "fit")
        values.append((model.training_step(given, 0) - without).item())
    assert values[0] > 0 and values[1] == pytest.approx(2 * values[0], rel=1e-3) and values[2] >= 0
    JacobianRegularization(1.0, 1).setup(None, model, "fit")
    model.zero_grad()
    (model.training_step(given, 0) - mdeq(False).training_step(given, 0).detach()).backward()
    plain = mdeq(False)
    plain.training_step(given, 0).backward()
    for name in ("net.cell.blocks.0.widen_norm.weight", "encoder.cell.blocks.0.widen_norm.weight"):
        assert not torch.allclose(model.get_parameter(name).grad, plain.get_parameter(name).grad)


def test_explicit_networks_are_not_regularised():
    model, given = conv().eval(), batch()
    without = model.training_step(given, 0)
    JacobianRegularization(1.0, 1, 1.0).setup(None, model, "fit")
    assert model.training_step(given, 0).equal(without)


def test_with_an_operator_the_encoder_sees_the_measurement_and_the_target_is_clean():
    given, model = batch(), conv(operator=PixelMask(0.5)).eval()
    shown = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0]))
    metrics, _, image = model.evaluate(given)
    kept = shown[0] != 0
    assert kept.flatten(1).sum(dim=1).tolist() == [32] * 3 and shown[0][kept].equal(given.image[kept])
    assert torch.allclose(metrics["error"], (image - given.image).square().flatten(1).mean(dim=1))
    assert {"psnr_input", "error_inside", "error_outside"} <= set(metrics)
    assert model.panels(given)["corrupted"].equal(shown[0])


def test_what_does_not_fit():
    with pytest.raises(ValueError, match=r"to 3 numbers and model.net makes images of \(1, 8, 8\) from 4: give both"):
        Autoencoding(ConvEncoder(3, SHAPE, 1), ExplicitGenerator(ConvDecoder(4, SHAPE, 1)))
    with pytest.raises(ValueError, match="is Variational: set model.encoder.variational to true"):
        conv(False, latent_regularizer=Variational())
    with pytest.raises(ValueError, match="is Unregularised: set model.encoder.variational to false"):
        conv(True)
    with pytest.raises(ValueError, match=r"the data has images of \(1, 8, 8\)"):
        torch.manual_seed(0)
        quiet(Autoencoding(ConvEncoder(3, (1, 9, 9), 1), ExplicitGenerator(ConvDecoder(3, (1, 9, 9), 1)))).training_step(
            batch(), 0
        )
    spoilt = batch()
    spoilt.image[0, 0, 0, 0] = float("nan")
    with pytest.raises(SolveError, match="not finite .*the data or the weights hold NaN"):
        conv().eval().training_step(spoilt, 0)


def test_a_generator_takes_an_autoencoders_weights_and_leaves_the_encoder():
    model = mdeq()
    generator = Generation(LatentGenerator(3, (8, 8), SHAPE, expansion=1))
    generator.load_state_dict(model.state_dict())
    assert all(tensor.equal(model.state_dict()[name]) for name, tensor in generator.state_dict().items())
    with pytest.raises(ValueError, match="unknown, .* in the checkpoint and missing here"):
        generator.load_state_dict(model.state_dict() | {"unknown": torch.zeros(1)})
    with pytest.raises(ValueError, match="tensors differ, such as encoder"):
        model.load_state_dict(generator.state_dict())
    model.load_state_dict(model.state_dict() | {"learned_start.weight": torch.zeros(1)})


AUTOENCODER = """\
model:
  class_path: experiments.baselines.Autoencoding
  init_args:
    encoder:
      class_path: experiments.baselines.MDEQEncoder
      init_args:
        {latent: 4, channels: [8, 8], image_shape: [1, 8, 8], expansion: 1, variational: true, head_width: 2, features: 8}
    net:
      class_path: jiio_lightning.models.LatentGenerator
      init_args: {latent: 4, channels: [8, 8], image_shape: [1, 8, 8], expansion: 1}
    latent_regularizer: {class_path: experiments.baselines.Variational, init_args: {beta: 0.5}}
    forward: &few {method: {class_path: jiio_lightning.core.solvers.Anderson, init_args: {memory: 4}}, max_steps: 6}
    backward: *few
"""
LAST = "runs/vae/checkpoints/last.ckpt"


@pytest.fixture
def vae(jiio):
    """``jiio`` with ``vae.yaml``: the tiny run as an MDEQ-VAE, without a solver."""
    text = Path("tiny.yaml").read_text()
    head, tail = text[: text.index("solver:")], text[text.index("data:\n") :]
    Path("vae.yaml").write_text(head + "jacobian: {coefficient: 0.1, probes: 1, mode_coefficient: 0.1}\n" + AUTOENCODER + tail)
    return jiio


def test_an_mdeq_vae_trains_and_its_checkpoint_is_one_for_jiio(vae):
    assert vae("fit", "--config", "vae.yaml") == 0
    assert vae("test", "--config", "vae.yaml", "--ckpt_path", LAST) == 0
    own = metrics(Path("runs/vae"))[-1]
    assert vae("test", "--config", "tiny.yaml", "--ckpt_path", LAST, "--solver.test.max_steps", 30) == 0
    joint = metrics(Path("runs/tiny"))[0]
    assert float(joint["test/resolve_residual"]) < 1e-4 and float(own["test/resolve_residual"]) < 1e-4
    assert float(joint["test/error"]) < float(own["test/error"]), "the best latent is better than the encoder's"
    assert own["test/pca_error"] == joint["test/pca_error"]


def test_a_resumed_vae_is_the_run(vae):
    """Its noise and its probes follow from the step."""
    every = (
        "--trainer.callbacks+=pytorch_lightning.callbacks.ModelCheckpoint",
        "--trainer.callbacks.dirpath=every",
        "--trainer.callbacks.every_n_train_steps=1",
        "--trainer.callbacks.save_top_k=-1",
    )
    steps = ("--trainer.max_steps", 4, "--trainer.val_check_interval", 4)
    assert vae("fit", "--config", "vae.yaml", *steps, *every) == 0
    whole = torch.load(LAST, weights_only=True)["state_dict"]
    assert vae("fit", "--config", "vae.yaml", *steps, "--ckpt_path", "every/epoch=0-step=2.ckpt") == 0
    resumed = torch.load(LAST, weights_only=True)["state_dict"]
    assert all(tensor.equal(resumed[name]) for name, tensor in whole.items())
