"""A masked autoencoder over the patches of an image, and a classifier with the same encoder."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skmimood.networks.transformer import make_blocks
from skmimood.networks.weights import in_float32, initialise_matrices


def sine_cosine_positions(grid: tuple[int, int], width: int, device: torch.device) -> Tensor:
    """Return fixed embeddings (h * w, width) of the positions of a grid, half of each for the row (He et al. 2022)."""
    quarter = math.ceil(width / 4)
    frequency = 10_000 ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    rows, columns = (torch.arange(side, device=device)[:, None] * frequency for side in grid)
    rows = torch.cat([rows.sin(), rows.cos()], 1)[:, None].expand(-1, grid[1], -1)
    columns = torch.cat([columns.sin(), columns.cos()], 1)[None].expand(grid[0], -1, -1)
    return torch.cat([rows, columns], 2).flatten(0, 1)[:, :width]


def to_patches(images: Tensor, patch_size: int) -> Tensor:
    """Cut images (n, H, W), padded with 0 at the right and bottom, into patches (n, h * w, patch_size**2)."""
    height, width = images.shape[1:]
    images = F.pad(images, (0, -width % patch_size, 0, -height % patch_size))
    return F.unfold(images[:, None], patch_size, stride=patch_size).transpose(1, 2)


def to_images(patches: Tensor, patch_size: int, image_shape: tuple[int, ...]) -> Tensor:
    """Join patches (n, h * w, patch_size**2) to images of (n, H, W), without what was padded."""
    height, width = image_shape
    padded = (height + -height % patch_size, width + -width % patch_size)
    images = F.fold(patches.transpose(1, 2), padded, patch_size, stride=patch_size)
    return images[:, 0, :height, :width]


class PatchEncoder(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021) without class token and last norm; ``sizes`` as of `make_blocks`."""

    def __init__(self, *, grid: tuple[int, int], patch_size: int, width: int, **sizes: Any) -> None:
        super().__init__()
        self.grid, self.width = grid, width
        self.embedding = nn.Linear(patch_size**2, width)
        self.blocks = make_blocks(width=width, **sizes)

    def forward(
        self, patches: Tensor, visible: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Map patches (n, L, P), of which only those at ``visible`` (n, K) are seen, to (n, K, D)."""
        x = self.embedding(patches) + sine_cosine_positions(self.grid, self.width, patches.device)
        if visible is not None:
            x = x.take_along_dim(visible[..., None], 1)
        for block in self.blocks:
            x = block(x, generator)
        return x


class MaskedAutoencoder(nn.Module):
    """Predicts all patches of an image from those that a `PatchEncoder` of these ``sizes`` sees (He et al. 2022)."""

    def __init__(
        self, *, mask_ratio: float, decoder_depth: int, decoder_width: int, decoder_n_heads: int, **sizes: Any
    ) -> None:
        super().__init__()
        self.grid, self.patch_size, width = sizes["grid"], sizes["patch_size"], sizes["width"]
        self.n_visible = max(1, int(self.grid[0] * self.grid[1] * (1 - mask_ratio)))
        self.encoder = PatchEncoder(**sizes)
        self.norm = nn.LayerNorm(width)
        self.bridge = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.empty(decoder_width))
        self.decoder = make_blocks(decoder_depth, decoder_width, decoder_n_heads, sizes["mlp_ratio"])
        self.decoder_norm = nn.LayerNorm(decoder_width)
        self.head = nn.Linear(decoder_width, self.patch_size**2)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights, not from the law of He et al.: this one is better in short trainings."""
        initialise_matrices(self, generator)
        nn.init.normal_(self.mask_token, std=0.02, generator=generator)

    def forward(self, patches: Tensor, visible: Tensor) -> Tensor:
        """Predict patches (n, L, P) from those at ``visible`` (n, K)."""
        n, length, _ = patches.shape
        seen = self.bridge(self.norm(self.encoder(patches, visible))).to(self.mask_token.dtype)  # (n, K, d)
        x = self.mask_token.expand(n, length, -1).scatter(1, visible[..., None].expand_as(seen), seen)
        x = x + sine_cosine_positions(self.grid, x.shape[2], x.device)
        for block in self.decoder:
            x = block(x)
        return in_float32(self.head, self.decoder_norm(x))

    def reconstruct(self, images: Tensor, visible: Tensor) -> Tensor:
        """Reconstruct images (n, H, W) from the visible patches of each of T trials (T, K): (n, T, H, W).

        Predictions are cut to [0, 1], and the visible patches are pasted back.
        """
        patches = to_patches(images, self.patch_size)
        trials = []
        for seen in visible:
            predicted = self(patches, seen.expand(len(images), -1)).clamp(0, 1)
            predicted[:, seen] = patches[:, seen]
            trials.append(to_images(predicted, self.patch_size, images.shape[1:]))
        return torch.stack(trials, 1)

    def hidden_share(self, visible: Tensor, image_shape: tuple[int, ...]) -> Tensor:
        """Return the share of the trials (T, K) in which each pixel is hidden, (H, W)."""
        hidden = visible.new_ones(len(visible), self.grid[0] * self.grid[1], dtype=torch.float32)
        patches = hidden.scatter(1, visible, 0.0).mean(0)[None, :, None].expand(-1, -1, self.patch_size**2)
        return to_images(patches, self.patch_size, image_shape)[0]


class ResidualClassifier(nn.Module):
    """Vision transformer from an image, here a residual, to the logits of two classes.

    The outputs of a `PatchEncoder` of these ``sizes`` are averaged over the patches, then normalised. Images are
    divided by ``scale``, their usual intensity: residuals are darker than the images that the encoder has learnt from.
    """

    scale: Tensor

    def __init__(self, **sizes: Any) -> None:
        super().__init__()
        self.patch_size = sizes["patch_size"]
        self.encoder = PatchEncoder(**sizes)
        self.norm = nn.LayerNorm(sizes["width"])
        self.head = nn.Linear(sizes["width"], 2)
        self.register_buffer("scale", torch.empty(()))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights; those of the head are next to 0, as where a masked autoencoder is fine-tuned."""
        initialise_matrices(self, generator)
        nn.init.normal_(self.head.weight, std=2e-5, generator=generator)
        nn.init.ones_(self.scale)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Map images (n, H, W) to logits (n, 2) of normal and abnormal; a ``generator`` means training."""
        x = self.encoder(to_patches(images / self.scale, self.patch_size), generator=generator)
        return in_float32(self.head, self.norm(x.mean(1)))


class AutoencoderWithClassifier(nn.Module):
    """A `MaskedAutoencoder` and the `ResidualClassifier` of its residuals; the ``sizes`` are of both."""

    def __init__(self, *, drop_path: float, **sizes: Any) -> None:
        super().__init__()
        self.autoencoder = MaskedAutoencoder(**sizes)
        encoder = {
            name: sizes[name] for name in ("grid", "patch_size", "depth", "width", "n_heads", "mlp_ratio")
        }
        self.classifier = ResidualClassifier(drop_path=drop_path, **encoder)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights of both."""
        self.autoencoder.initialise(generator)
        self.classifier.initialise(generator)
