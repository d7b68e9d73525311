"""A normalizing flow over feature maps, and the student that regresses it (Rudolph et al. 2023)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skmimood.networks.features import make_encoder
from skmimood.networks.mae import sine_cosine_positions
from skmimood.networks.weights import in_float32, initialise_convolutions

_CLAMP = 1.9  # of the logarithm of a scale
_N_POSITIONS = 32  # channels that tell a position
_SLOPE = 0.01  # of the activations below 0
_LAST = "2"  # the name of a subnet's last layer


def _with_positions(features: Tensor) -> Tensor:
    """Add the sines and cosines of the position to features (n, C, h, w) as further channels."""
    n, _, height, width = features.shape
    positions = sine_cosine_positions((height, width), _N_POSITIONS, features.device)
    return torch.cat([features, positions.T.reshape(1, -1, height, width).expand(n, -1, -1, -1)], dim=1)


class _Coupling(nn.Module):
    """Scales and shifts each half of the channels (n, C, h, w) as the other half and the position say."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        sizes = (width // 2, width - width // 2)
        self.subnets = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(n_in + _N_POSITIONS, hidden, 3, padding=1), nn.LeakyReLU(_SLOPE),
                nn.Conv2d(hidden, 2 * n_out, 3, padding=1),
            )
            for n_in, n_out in (sizes, sizes[::-1])
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the changed channels, the halves swapped, and the logarithm of the Jacobian (n,)."""
        first, second = x.split((x.shape[1] // 2, x.shape[1] - x.shape[1] // 2), dim=1)
        log_jacobian = x.new_zeros(len(x))
        for subnet in self.subnets:
            scale, shift = subnet(_with_positions(first)).float().chunk(2, dim=1)
            scale = _CLAMP * torch.tanh(scale / _CLAMP)
            first, second = second * scale.exp() + shift, first
            log_jacobian = log_jacobian + scale.sum((1, 2, 3))
        return torch.cat([second, first], dim=1), log_jacobian


class _Student(nn.Module):
    """A plain convolutional network with residual blocks, from features (n, C, h, w) to the teacher's outputs."""

    def __init__(self, width: int, hidden: int, n_blocks: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width + _N_POSITIONS, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(hidden, hidden, 3, padding=1), nn.GroupNorm(1, hidden), nn.LeakyReLU(_SLOPE),
                nn.Conv2d(hidden, hidden, 3, padding=1), nn.GroupNorm(1, hidden), nn.LeakyReLU(_SLOPE),
            )
            for _ in range(n_blocks)
        )  # fmt: skip
        self.last = nn.Conv2d(hidden, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(_with_positions(features)), _SLOPE)
        for block in self.blocks:
            x = x + block(x)
        return in_float32(self.last, x)


class FlowAndStudent(nn.Module):
    """Images (n, 1, H, W) to how far the student is from its teacher, a flow, at one of the backbone's feature maps.

    Features are those of the map ``level``, which has ``feature_width`` channels, standardised by ``mean`` and
    ``scale``. ``encoder`` are the sizes of the backbone, see `make_encoder`; without any, the caller sets it.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, *, feature_width: int, level: int, n_couplings: int, flow_width: int, n_blocks: int, student_width: int,
        **encoder: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.level, self.feature_width = level, feature_width
        self.encoder = make_encoder(**encoder)
        self.register_buffer("mean", torch.empty(feature_width))
        self.register_buffer("scale", torch.empty(feature_width))
        self.teacher = nn.ModuleList(_Coupling(feature_width, flow_width) for _ in range(n_couplings))
        self.student = _Student(feature_width, student_width, n_blocks)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights; the flow begins as the identity."""
        initialise_convolutions(self, generator)
        for name, weight in self.teacher.named_parameters():
            if name.split(".")[-2] == _LAST:
                nn.init.zeros_(weight)
        nn.init.ones_(self.scale)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the standardised features (n, C, h, w) of images (n, 1, H, W)."""
        assert self.encoder is not None
        features = self.encoder(images)[self.level].float()
        return (features - self.mean.view(-1, 1, 1)) / self.scale.view(-1, 1, 1)

    def flow(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's outputs (n, C, h, w) and the logarithm of its Jacobian (n,)."""
        x, log_jacobian = features, features.new_zeros(len(features))
        for coupling in self.teacher:
            x, more = coupling(x)
            log_jacobian = log_jacobian + more
        return x, log_jacobian

    def forward(self, images: Tensor, of_teacher: bool = False) -> list[Tensor] | Tensor:
        """Return the mean squared distances over channels, [(n, h, w)].

        With ``of_teacher``, return instead the teacher's negative log-likelihood (n,) in nats a feature, up to a
        constant.
        """
        features = self.features(images)
        if of_teacher:
            normal, log_jacobian = self.flow(features)
            return (normal.square().sum((1, 2, 3)) / 2 - log_jacobian) / features[0].numel()
        with torch.no_grad():
            wanted = self.flow(features)[0]
        return [(self.student(features) - wanted).square().mean(1)]
