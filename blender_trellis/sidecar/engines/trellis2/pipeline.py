# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks in their order: pictures to tokens, to occupied voxels, to a latent shape and texture, to a mesh with colours.

One function a stage, each from and to what can be kept: tensors on the CPU. One network is in memory at a time, and where there
is plenty of it those that were used before stay for the next job (`shelf.py`). Source of the order, of what is drawn when, and of
the token limit: https://github.com/microsoft/TRELLIS.2 (MIT).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from ..stages import EngineError
from .dual_grid import extract, voxelise
from .memory import Effort, Machine
from .picture import to_tensor
from .request import (
    DINO,
    SHAPE_DECODER,
    SHAPE_ENCODER,
    STRUCTURE_DECODER,
    STRUCTURE_FLOW,
    TEXTURE_DECODER,
    shape_flow,
    texture_flow,
)
from .sampler import Mode, Sampling, Velocity, sample
from .shelf import Shelf
from .vae import occupied, quantise
from .volume import Floats, Ints
from .weights import Checkpoint, Lora

_UPSAMPLED = 512
"""The resolution of the model that a cascade's first shape is decoded to."""

_FLOOR, _STEP = 1024, 128
"""A cascade's resolution is lowered by these steps, no further than to this."""


@dataclass(frozen=True)
class Drawing:
    """How a stage is sampled: its parameters, how several pictures are combined, and where random numbers come from."""

    sampling: Sampling
    mode: Mode
    random: Generator


class NotFinite(EngineError):
    """What a stage computed is no numbers."""


class Voxels(NamedTuple):
    """A shape's voxels: `coords` (M, 3), and the subdivisions that lead to them from the latent's, coarse to fine."""

    coords: Ints
    subdivisions: list[Ints]


class Pipeline:
    """Runs one job's stages with the networks of `checkpoint`.

    Args:
        shelf: where networks of earlier jobs may be, and those of this one will; one of its own if it is not given.
        loras: by network.
        check: called before every block of every network; what it raises ends the work.
        worked: called after every forward of a network, with its name.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        machine: Machine,
        effort: Effort,
        *,
        shelf: Shelf | None = None,
        loras: Mapping[str, Sequence[Lora]] | None = None,
        check: Callable[[], None] = lambda: None,
        worked: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.effort = effort
        self.forwards: Counter[str] = Counter()
        """How often each network was called."""
        self._checkpoint = checkpoint
        self.machine = machine
        self._shelf = shelf or Shelf()
        self._loras = loras or {}
        self._check = check
        self._worked = worked

    def exactly(self) -> bool:
        """Compute in float32 from now on; False if it was so all the time."""
        exact = replace(self.machine, flow=torch.float32, decoder=torch.float32)
        was, self.machine = self.machine, exact
        return was != exact

    # -- Image ---------------------------------------------------------------------------------------

    def condition(self, pictures: Sequence[Image.Image], size: int) -> list[Tensor]:
        """The tokens (1, L, C) of each prepared picture, looked at with `size` pixels."""
        with self._network(DINO) as (network, device):
            seen = []
            for picture in pictures:
                seen.append(network(to_tensor(picture, size).to(device)).cpu())
                self._count(DINO)
        for tokens in seen:
            _require_finite(tokens, "image")
        return seen

    # -- Structure -----------------------------------------------------------------------------------

    def structure(self, conditions: Sequence[Tensor], drawing: Drawing, side: int) -> Tensor:
        """The occupied voxels (N, 3), int32, of a grid of `side` voxels.

        Raises:
            EngineError: there is none.
        """
        settings = self._checkpoint.settings(STRUCTURE_FLOW)
        size, channels = settings["resolution"], settings["in_channels"]
        noise = torch.randn(1, channels, size, size, size, generator=drawing.random)
        with self._network(STRUCTURE_FLOW) as (network, device):
            latent = self._sample(STRUCTURE_FLOW, network, noise.to(device), conditions, drawing)
        _require_finite(latent, "structure")
        with self._network(STRUCTURE_DECODER) as (network, device):
            logits = network(latent.to(device)).cpu()
            self._count(STRUCTURE_DECODER)
        _require_finite(logits, "structure")
        coords = occupied(logits, logits.shape[-1] // side)
        if len(coords) == 0:
            raise EngineError(
                "TRELLIS.2 recognised nothing in the picture. Use one in which the whole subject stands out from its "
                "background, or a PNG with a transparent background; another seed may help."
            )
        return coords

    # -- Shape ---------------------------------------------------------------------------------------

    def shape(
        self, coords: Tensor, conditions: Sequence[Tensor], drawing: Drawing, size: int
    ) -> Tensor:
        """The latent shape (N, C) at voxels `coords`, by the network for conditions of `size` pixels."""
        name = shape_flow(size)
        channels = self._checkpoint.settings(name)["in_channels"]
        noise = torch.randn(len(coords), channels, generator=drawing.random)
        with self._network(name) as (network, device):
            where = coords.to(device)
            latent = self._sample(
                name,
                lambda x, t, condition: network(x, where, t, condition),
                noise.to(device),
                conditions,
                drawing,
            )
        _require_finite(latent, "shape")
        mean, deviation = self._normalisation("shape")
        return latent * deviation + mean

    def upsample(self, latent: Tensor, coords: Tensor) -> Tensor:
        """The voxels (M, 3) of the model of 512 that the latent shape stands for."""
        with self._network(SHAPE_DECODER) as (network, device):
            finer: Tensor = network.upsample(latent.to(device), coords.to(device), 4).cpu()
            self._count(SHAPE_DECODER)
        return _some(finer)

    def cascade(self, voxels: Tensor, resolution: int) -> tuple[Tensor, int]:
        """The voxels of the finer latent, and the resolution of its model: lower than asked for beyond the token limit."""
        while True:
            coords = quantise(voxels, _UPSAMPLED, resolution)
            if len(coords) < self.effort.max_tokens or resolution <= _FLOOR:
                return coords, resolution
            resolution -= _STEP

    def decode_shape(
        self, latent: Tensor, coords: Tensor, resolution: int
    ) -> tuple[Voxels, Floats, Ints]:
        """The voxels of a latent shape, and the vertices and faces of its mesh."""
        with self._network(SHAPE_DECODER) as (network, device):
            found, head, subdivisions = network(latent.to(device), coords.to(device))
            found, head = found.cpu(), head.cpu()
            subdivisions = [each.cpu().numpy() for each in subdivisions]
            self._count(SHAPE_DECODER)
        _require_finite(head, "shape")
        finest = _some(found).numpy()
        self._check()
        vertices, faces = extract(finest, head.numpy(), resolution)
        if len(faces) == 0:
            raise EngineError(_EMPTY)
        return Voxels(finest, subdivisions), vertices, faces

    def encode_shape(
        self, vertices: Floats, faces: Ints, resolution: int
    ) -> tuple[Tensor, Tensor, Voxels]:
        """The latent (N, C) and its voxels (N, 3) of a mesh in the cube from -0.5 to 0.5, and the mesh's own voxels."""
        finest, dual, flags = voxelise(vertices, faces, resolution, self._check)
        if len(finest) == 0:
            raise EngineError("The model has no surface to give a texture.", "mesh_url")
        feats = torch.from_numpy(np.concatenate([dual, flags], 1).astype(np.float32) - 0.5)
        with self._network(SHAPE_ENCODER) as (network, device):
            voxels = torch.from_numpy(finest).to(device)
            latent, coords, subdivisions = network(feats.to(device), voxels)
            latent, coords = latent.cpu(), coords.cpu()
            subdivisions = [each.cpu().numpy() for each in subdivisions]
            self._count(SHAPE_ENCODER)
        _require_finite(latent, "shape")
        return latent, coords, Voxels(finest, subdivisions)

    # -- Texture -------------------------------------------------------------------------------------

    def texture(
        self,
        shape: Tensor,
        coords: Tensor,
        conditions: Sequence[Tensor],
        drawing: Drawing,
        size: int,
    ) -> Tensor:
        """The latent texture (N, C) of a latent shape."""
        name = texture_flow(size)
        seen = self.unscaled(shape, "shape")
        channels = self._checkpoint.settings(name)["in_channels"] - seen.shape[1]
        noise = torch.randn(len(coords), channels, generator=drawing.random)
        with self._network(name) as (network, device):
            where, beside = coords.to(device), seen.to(device)
            latent = self._sample(
                name,
                lambda x, t, condition: network(x, where, t, condition, beside),
                noise.to(device),
                conditions,
                drawing,
            )
        _require_finite(latent, "texture")
        mean, deviation = self._normalisation("tex")
        return latent * deviation + mean

    def decode_texture(
        self, latent: Tensor, coords: Tensor, subdivisions: Sequence[Ints]
    ) -> Floats:
        """Base colour, metallic, roughness and alpha (M, 6), about 0 to 1, of the shape's voxels."""
        with self._network(TEXTURE_DECODER) as (network, device):
            slots = [torch.from_numpy(each).to(device) for each in subdivisions]
            attributes: Tensor = network(latent.to(device), coords.to(device), slots).cpu()
            self._count(TEXTURE_DECODER)
        _require_finite(attributes, "texture")
        return attributes.numpy()

    # -- What they share -----------------------------------------------------------------------------

    @contextmanager
    def _network(self, name: str) -> Iterator[tuple[Any, torch.device]]:
        """A network, and where it is, for this job's use in the block."""
        device, torso = self.machine.device, self.machine.flow
        if "flow" not in name:
            torso = self.machine.decoder
            if self.effort.decoder_on_cpu and name != DINO:
                device, torso = torch.device("cpu"), torch.float32
        loras = self._loras.get(name, ())
        made_of = self._checkpoint.settings(name), [lora.identity for lora in loras]
        identity = self._checkpoint.identity([name]), *made_of, device, torso
        load = partial(self._checkpoint.load, name, device, torso, loras)
        keeps = self.effort.keeps
        with self._shelf.network(name, identity, load, self.machine, stays=keeps) as found:
            network: Any = found
            network.rows = self.effort.rows if "flow" in name else 4 * self.effort.rows
            network.check = self._check_now
            try:
                yield network, device
            finally:
                network.check = _unasked  # a network that stays must not hold its job

    def _sample(
        self,
        name: str,
        network: Velocity,
        noise: Tensor,
        conditions: Sequence[Tensor],
        drawing: Drawing,
    ) -> Tensor:
        seen = [condition.to(noise.device) for condition in conditions]

        def velocity(x: Tensor, t: float, condition: Tensor) -> Tensor:
            v = network(x, t, condition)
            self._count(name)
            return v

        negative = torch.zeros_like(seen[0])
        return sample(velocity, noise, seen, negative, drawing.sampling, mode=drawing.mode).cpu()

    def _check_now(self) -> None:
        """A GPU works off what it was told long ago: only when it has caught up is this block the one that is computed."""
        self.machine.wait()
        self._check()

    def _count(self, name: str) -> None:
        self.machine.wait()
        self.forwards[name] += 1
        self._worked(name)
        self._check()

    def unscaled(self, latent: Tensor, of: str) -> Tensor:
        """A latent "shape" or "tex" as the networks know it, with a mean of about 0 and a spread of about 1."""
        mean, deviation = self._normalisation(of)
        return (latent - mean) / deviation

    def _normalisation(self, of: str) -> tuple[Tensor, Tensor]:
        given = self._checkpoint.args[f"{of}_slat_normalization"]
        return torch.tensor(given["mean"]), torch.tensor(given["std"])


def _unasked() -> None:
    """What nobody asks while nobody computes."""


_EMPTY = "The shape came out empty. Use another seed, or a picture in which the whole subject stands out from its background."


def _some(coords: Tensor) -> Tensor:
    if len(coords) == 0:
        raise EngineError(_EMPTY)
    return coords


def _require_finite(values: Tensor, stage: str) -> None:
    if not bool(values.isfinite().all()):
        raise NotFinite(
            f"The {stage} stage ended in numbers that are none (NaN). If a LoRA is used, lower its scale; else this GPU or its "
            "driver computes wrongly: update the driver, or set TRELLIS_DEVICE=cpu to compute on the CPU."
        )
