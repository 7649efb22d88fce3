"""Implicit representations: one net that is one signal ((Implicit)^2, Huang, Bai and Kolter, NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from jiio_lightning.core.equilibrium import Cell, Neumann, equilibrium
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.solvers.picard import Picard
from jiio_lightning.core.weights import cached_weights
from jiio_lightning.metrics.occupancy import occupancy_metrics
from jiio_lightning.metrics.psnr import SSIM_WINDOW, psnr, ssim
from jiio_lightning.models.interface import CoordinateNet
from jiio_lightning.tasks.base import check_weights, in_full_precision
from jiio_lightning.tasks.optimiser import adam
from jiio_lightning.tasks.processes import weighted
from jiio_lightning.tasks.warm_start import Cache, WarmStart

CHUNK = 16_384
"""Coordinates that are evaluated at once outside training."""

NEXT_Z = "warm_start"
"""Key of the cache in a checkpoint."""


class Representation(LightningModule):
    r"""Fits a net to one signal, values y at coordinates c.

    .. math:: \min_\theta \sum_c \| y_c - h_\theta(z_c^*) \|^2 \quad \text{with} \quad z_c^* = f_\theta(z_c^*, c)

    It optimises no input: ``solver`` and ``jacobian`` of a run file do not apply. An explicit net has no equilibrium, and only
    ``net``, ``learning_rate``, ``one_cycle`` and ``occupancy`` mean something for it.

    Args:
        net: values from coordinates.
        learning_rate: of Adam (the paper's images and audio: 1e-3).
        one_cycle: warm up and anneal over the run; the paper's is constant.
        order: T of the truncated Neumann series for the adjoint (the paper: 1), or ``converged``.
        warm_start: begin at each coordinate's z of its last visit; null solves from 0 in every step (the paper's video, solids).
        forward: solver from z = 0, of the first step, of steps without a warm start and of evaluation; plain iteration to a
            residual of 1e-3, 100 evaluations at most, unless given (released code).
        occupancy: values are 0 outside and 1 inside of a solid: cross-entropy in the place of the squared error.
    """

    def __init__(
        self,
        net: CoordinateNet,
        learning_rate: float = 1e-3,
        one_cycle: bool = False,
        order: int | Literal["converged"] = 1,
        warm_start: WarmStart | None = WarmStart(),
        forward: FixedPoint | None = None,
        occupancy: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.learning_rate = learning_rate
        self.one_cycle = one_cycle
        self.adjoint = FixedPoint(Picard(), 100, tol=1e-4) if order == "converged" else Neumann(order)
        self.cache = Cache(warm_start) if warm_start is not None and net.implicit else None
        self.cold = FixedPoint(Picard(), 100, tol=1e-3) if forward is None else forward
        self.occupancy = occupancy

    # training

    def setup(self, stage: str) -> None:
        """Refuse, by a ValueError, a warm start in several processes."""
        # a point comes to another process in each step, and the budget follows a residual over all of them
        if stage == "fit" and self.trainer.world_size > 1 and self.cache is not None:
            raise ValueError("processes do not keep each other's z: set model.warm_start to null, or trainer.devices to 1")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        check_signal(batch, self.net, self.occupancy)
        with cached_weights(self.net):
            values = self.net.values(batch.c, lambda f, x, hidden: self._solve(batch, f, x, hidden))
        loss = self.loss(values, batch.values)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch.c))
        if not self.occupancy:
            # of the loss, whose values are not clamped; those of validation and test are
            self.log("train/psnr", -10 * torch.log10(loss.detach() / 4), prog_bar=True, batch_size=len(batch.c))
        return weighted(loss, len(batch.c))

    def loss(self, values: Tensor, target: Tensor) -> Tensor:
        """Mean squared error, or cross-entropy of occupancies, whose values are logits."""
        return F.binary_cross_entropy_with_logits(values, target) if self.occupancy else F.mse_loss(values, target)

    def _solve(self, batch: Any, f: Cell, x: Tensor, hidden: int) -> Tensor:
        """The equilibrium at a training batch's coordinates with its graph ``(N, D)``."""
        if self.cache is not None and not batch.total:
            raise ValueError("these data have new points in each step, which have no last z: set model.warm_start to null")
        z0, evaluations = x.new_zeros(len(x), hidden), None
        if self.cache is not None:
            z0, evaluations = self.cache.start(batch.index, batch.total, hidden, batch.whole)
        with torch.no_grad():
            if evaluations is None:
                solution = self.cold(lambda z: f(z, x), z0)
                z0, evaluations = solution.value, solution.num_steps
            else:
                for _ in range(evaluations):  # no solver: it would measure where it ends, which the last evaluation below does
                    z0 = f(z0, x)
        # The filters stay in the closure: as an argument they would be copied for the linearisation.
        z = equilibrium(lambda z, _: f(z, x), x[:, :0], z0, None, self.adjoint)
        new = z.detach()
        residual = torch.linalg.vector_norm(new - z0) / torch.linalg.vector_norm(new)
        if self.cache is not None:
            self.cache.keep(batch.index, new, residual, batch.whole)
        self.log_dict({"train/residual_z": residual, "train/evaluations": evaluations + 1.0}, batch_size=len(z))
        return z

    # evaluation

    def render(self, c: Tensor) -> Tensor:
        """Values ``(N, C)`` at coordinates ``(N, d)``, with z solved from 0; logits of occupancies."""
        return self._rendered(c)[0]

    @torch.no_grad()
    def _rendered(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """As ``render``, and the largest relative residual of z, 0 without an equilibrium."""
        residuals = [c.new_zeros(())]

        def solve(f: Cell, x: Tensor, hidden: int) -> Tensor:
            solution = self.cold(lambda z: f(z, x), x.new_zeros(len(x), hidden))
            residuals.append(solution.residual.max())
            return solution.value

        with cached_weights(self.net):
            values = torch.cat([self.net.values(part, solve) for part in c.split(CHUNK)])
        return values, torch.stack(residuals).max()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """The values ``(N, C)`` at the batch's coordinates, for whoever shows them; their metrics are logged."""
        return self._evaluated("val", batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """As validation_step."""
        return self._evaluated("test", batch)

    @in_full_precision
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """``values`` ``(N, C)`` at the batch's coordinates ``c`` ``(N, d)``."""
        check_signal(batch, self.net, self.occupancy)
        return {"c": batch.c, "values": self.render(batch.c)}

    @in_full_precision
    def _evaluated(self, stage: str, batch: Any) -> dict[str, Tensor]:
        check_signal(batch, self.net, self.occupancy)
        values, residual = self._rendered(batch.c)
        metrics = occupancy_metrics(values, batch.values) if self.occupancy else signal_metrics(values, batch.values, batch.shape)
        metrics["residual_z"] = residual
        part = f"_{batch.part}" if batch.part else ""
        self.log_dict({f"{stage}/{name}{part}": value for name, value in metrics.items()}, batch_size=len(values))
        return {"values": values}

    def on_validation_epoch_end(self) -> None:
        bound = self.net.lipschitz()
        if bound is not None:
            self.log("val/lipschitz", bound)

    def on_fit_end(self) -> None:
        """Say whether the cell is a contraction."""
        bound = self.net.lipschitz()
        if bound is not None:
            rank_zero_info(
                f"the cell is a contraction: its Lipschitz constant in z is at most {bound:.3f}"
                if bound < 1
                else f"the cell is not known to be a contraction: the norms of its weights multiply to {bound:.3f}. Set "
                "model.net.bound below 1 for one"
            )

    # checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.cache is not None:
            checkpoint[NEXT_Z] = self.cache.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.cache is not None and NEXT_Z in checkpoint:
            self.cache.load_state_dict(checkpoint[NEXT_Z])

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in PyTorch, but weights of another net are one ValueError."""
        if strict:
            check_weights(self, state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def configure_optimizers(self) -> Any:
        configured = adam(self, self.learning_rate, self.one_cycle)
        if self.cache is not None:
            optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
            optimizer.register_step_post_hook(lambda *_: self.cache.commit())
        return configured


def check_signal(batch: Any, net: CoordinateNet, occupancy: bool) -> None:
    """Refuse, by a ValueError, a signal that is not the net's or the loss's."""
    given, wanted = (batch.c.shape[1], batch.values.shape[1]), (net.dims, net.channels)
    if given != wanted:
        raise ValueError(
            f"the signal has {given[0]} coordinates and {given[1]} channels, the net is for {wanted[0]} and {wanted[1]}: set "
            "model.net.dims and model.net.channels to the signal's"
        )
    if batch.occupancy != occupancy:
        raise ValueError(f"these data need model.occupancy: {str(batch.occupancy).lower()}")


def signal_metrics(values: Tensor, target: Tensor, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Squared error and PSNR in dB of values ``(N, C)`` clamped to [-1, 1], a range of 2; from 11x11 pixels up also SSIM.

    Of the frames of a video: the mean, and ``psnr_std`` over them. ``shape`` is that of the grid which the points fill, or empty.
    """
    image, target = (frames(part.clamp(-1, 1), shape) for part in (values, target))
    each = psnr(image, target, data_range=2.0)
    metrics = {"error": (image - target).square().mean(), "psnr": each.mean()}
    if len(each) > 1:
        metrics["psnr_std"] = each.std()
    if min(image.shape[-2:]) >= SSIM_WINDOW:
        metrics["ssim"] = ssim(image, target, data_range=2.0).mean()
    return metrics


def frames(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Values ``(N, C)`` on a grid ``(H, W)`` or ``(T, H, W)`` as images ``(T, C, H, W)``; one row of any other."""
    if len(shape) not in (2, 3):
        return values.mT[None, :, None]
    images = values.reshape(-1, *shape[-2:], values.shape[1])
    return images.permute(0, 3, 1, 2)
