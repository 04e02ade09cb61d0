# SPDX-License-Identifier: GPL-3.0-or-later
"""From the official files to networks: the layout of a checkpoint, strict loading, and LoRAs merged on the way.

A network is first built on the meta device, then given the file's tensors one by one, in the precision that it computes in:
the file is mapped, not read, and no weight is in memory twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..stages import EngineError
from .dinov3 import DinoV3, convert
from .dit import SlatFlow, StructureFlow
from .request import DINO
from .vae import ShapeDecoder, ShapeEncoder, StructureDecoder, TextureDecoder

_CLASSES: Mapping[str, type[nn.Module]] = {
    "SparseStructureFlowModel": StructureFlow,
    "SLatFlowModel": SlatFlow,
    "ElasticSLatFlowModel": SlatFlow,  # the same network; the prefix speaks of its training
    "SparseStructureDecoder": StructureDecoder,
    "FlexiDualGridVaeDecoder": ShapeDecoder,
    "FlexiDualGridVaeEncoder": ShapeEncoder,
    "SparseUnetVaeDecoder": TextureDecoder,
}
"""Our networks by the official names of their classes."""

_DINO_COPIES = (
    "facebook/dinov3-vitl16-pretrain-lvd1689m",
    "timm/vit_large_patch16_dinov3.lvd1689m",
    "LibreYOLO/LibreDINOv3vitl16",
)
"""Repositories with the same weights, for want of the one that pipeline.json names."""

_COMPUTED = "rope_phases"
"""A table, not a weight; some files hold it."""

_AGAIN = "Download the weights again, with `trellis sidecar install`."


def file_identity(path: Path) -> tuple[str, int, int]:
    """Path, size and time of change. Raises an OSError if there is no such file."""
    state = path.stat()
    return str(path), state.st_size, state.st_mtime_ns


class _Files(NamedTuple):
    settings: Path
    weights: Path


class Checkpoint:
    """A folder in the official layout: pipeline.json, or another `config`, and the files that it names.

    What pipeline.json names in another repository is looked for in `<org>--<repo>/…`, and under the rest of its path.
    """

    def __init__(self, folder: Path, config: str = "pipeline.json") -> None:
        """Read the folder's description.

        Raises:
            EngineError: it is not there, or none.
        """
        self._folder = folder
        if not (folder / config).exists():
            raise _not_here(folder / config)
        self.args: dict[str, Any] = _read(folder / config)["args"]

    def settings(self, model: str) -> dict[str, Any]:
        """The arguments that a network is built with."""
        path = self._files(model).settings
        if model == DINO:
            return _read(path) if path.exists() else {}
        arguments: dict[str, Any] = _read(path)["args"]
        return arguments

    def identity(self, models: Sequence[str]) -> list[tuple[str, int, int]]:
        """What tells each network's weights apart without reading them.

        Raises:
            EngineError: one is missing.
        """
        found = []
        for model in models:
            path = self._files(model).weights
            try:
                found.append(file_identity(path))
            except FileNotFoundError as error:
                raise _not_here(path) from error
            except OSError as error:
                raise _unreadable(path, error) from error
        return found

    def blueprint(self, model: str) -> nn.Module:
        """The network without its weights, on the meta device."""
        with torch.device("meta"):
            if model == DINO:
                return DinoV3(**self.settings(model))
            path = self._files(model).settings
            name = _read(path)["name"]
            if name not in _CLASSES:
                raise EngineError(
                    f"{path} describes a {name}, which this engine does not know. {_AGAIN}"
                )
            return _CLASSES[name](**self.settings(model))

    def load(
        self,
        model: str,
        device: torch.device,
        torso: torch.dtype = torch.float32,
        loras: Sequence[Lora] = (),
    ) -> nn.Module:
        """The network on `device`, its torso in the precision `torso`.

        Raises:
            EngineError: a key is missing, unknown or of another shape; it names file and key.
        """
        network = self.blueprint(model)
        if model != DINO:
            network.to_torso(torso)  # type: ignore[operator]
        path = self._files(model).weights
        tensors = _tensors(path)
        tensors = convert(tensors) if model == DINO else tensors
        tensors.pop(_COMPUTED, None)
        flow = isinstance(network, StructureFlow | SlatFlow)
        kept = network.kept_as_stored() if flow else set()  # type: ignore[operator]
        wanted = network.state_dict()
        _compare(path, tensors, wanted)
        state = {}
        for name, target in wanted.items():
            weight = tensors.pop(name).to(device)
            for lora in loras:
                weight = lora.merged(name, weight)
            stays = name in kept and weight.dtype in (torch.bfloat16, torch.float16)
            state[name] = weight if stays else weight.to(target.dtype)
        network.load_state_dict(state, assign=True)
        return network.eval().requires_grad_(False)

    def _files(self, model: str) -> _Files:
        """The json and the safetensors of a network; they need not exist."""
        if model == DINO:
            named = self.args[DINO]["args"]["model_name"]
            places = [self._folder / name.replace("/", "--") for name in (named, *_DINO_COPIES)]
            place = next((place for place in places if place.exists()), places[0])
            return _Files(place / "config.json", place / "model.safetensors")
        stem = self.args["models"][model]
        parts = stem.split("/")
        rest = "/".join(parts[2:])
        stems = [stem, f"{'--'.join(parts[:2])}/{rest}", rest]
        found = [
            _Files(*(self._folder / f"{each}.{end}" for end in ("json", "safetensors")))
            for each in stems
        ]
        return next((files for files in found if files.settings.exists()), found[0])


@dataclass(frozen=True)
class Lora:
    """Changes of low rank to a network's linear layers: the pairs (A, B, scale) by the layer's name."""

    path: Path
    pairs: Mapping[str, tuple[Tensor, Tensor, float]]
    identity: tuple[str, int, int, float]
    """What tells it from others without reading it: file and scale."""

    @classmethod
    def read(cls, path: Path, scale: float, field: str | None = None) -> Lora:
        """The file's LoRA, at `scale`. `field` is the request's key to blame for it.

        Takes pairs lora_A and lora_B (PEFT), or lora_down and lora_up with alpha (Kohya), under the layers' official names.

        Raises:
            EngineError: it cannot be read, or has a key that is no part of a LoRA; it names file and key.
        """
        try:  # before it is read: a change in between must not go unseen
            identity = (*file_identity(path), scale)
        except OSError as error:
            raise _unreadable(path, error, field) from error
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in _tensors(path, field).items():
            found = _LORA_KEY.fullmatch(key)
            if not found:
                raise EngineError(f"{path} is no LoRA: it has the key {key!r}.", field)
            kind = {"A": "down", "B": "up"}.get(found["ab"], found["kind"]) or "alpha"
            parts.setdefault(found["layer"], {})[kind] = tensor
        pairs = {}
        for layer, pair in parts.items():
            if not {"down", "up"} <= pair.keys():
                raise EngineError(f"{path} has only half a LoRA for {layer!r}.", field)
            down, up = pair["down"].float(), pair["up"].float()
            if down.ndim != 2 or up.ndim != 2 or not len(down):
                raise EngineError(f"{path} has no matrices for {layer!r}, as a LoRA should.", field)
            rank = len(down)
            alpha = float(pair["alpha"]) if "alpha" in pair else rank
            pairs[layer] = down, up, scale * alpha / rank
        return cls(path, pairs, identity)

    def check(self, network: nn.Module, field: str | None = None) -> None:
        """See that every part fits a linear layer of `network`, which may be a blueprint.

        Raises:
            EngineError: one fits none; it names file and key.
        """
        layers = {
            name: each for name, each in network.named_modules() if isinstance(each, nn.Linear)
        }
        for name, (down, up, _) in self.pairs.items():
            if name not in layers:
                raise EngineError(
                    f"{self.path} changes the layer {name!r}, which this network does not have. It was made for another one.",
                    field,
                )
            shape = tuple(layers[name].weight.shape)
            if (up.shape[0], down.shape[1]) != shape or up.shape[1] != down.shape[0]:
                raise EngineError(
                    f"{self.path} does not fit the layer {name!r}: it has {tuple(up.shape)} × {tuple(down.shape)} for {shape}.",
                    field,
                )

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """The weight called `name`, changed if this LoRA changes it: W + scale · B A, in float32."""
        pair = self.pairs.get(name.removesuffix(".weight"))
        if pair is None or not name.endswith(".weight"):
            return weight
        down, up, scale = pair
        return weight.float() + scale * (up.to(weight.device) @ down.to(weight.device))


_LORA_KEY = re.compile(
    r"(?:base_model\.model\.|diffusion_model\.|transformer\.)?(?P<layer>.+?)"
    r"\.(?:lora_(?P<ab>[AB])(?:\.default)?\.weight|lora_(?P<kind>down|up)\.weight|alpha)"
)


_NO_MEMORY = re.compile(r"os error (?:12|1455)\)")
"""What safetensors says where Linux and macOS have no memory for a mapping, or Windows no page file, in whatever language."""


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, dict):
        raise _unreadable(path, ValueError("no JSON object"))
    return content


def _tensors(path: Path, field: str | None = None) -> dict[str, Tensor]:
    """A file's tensors: mapped, so that the disk is read when they are used."""
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        if _NO_MEMORY.search(str(error)):
            raise MemoryError(f"{path} cannot be mapped: {error}") from error
        raise _unreadable(path, error, field) from error


def _not_here(path: Path) -> EngineError:
    return EngineError(
        f"TRELLIS.2's weights are not complete: {path} is not there. Install what the chosen resolution needs in the add-on's "
        "preferences, or with `trellis sidecar install`."
    )


def _unreadable(path: Path, error: Exception, field: str | None = None) -> EngineError:
    if field:
        return EngineError(f"{path} cannot be read ({error}).", field)
    return EngineError(f"The weights in {path} cannot be read ({error}). {_AGAIN}")


def _compare(path: Path, there: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """See that the file holds exactly what is wanted: a decoder with random weights still makes something.

    Raises:
        EngineError: it does not; it names file and key.
    """
    faults = [f"{name!r} is missing" for name in wanted.keys() - there.keys()]
    faults += [f"{name!r} is not known" for name in there.keys() - wanted.keys()]
    faults += [
        f"{name!r} has the shape {tuple(there[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted.keys() & there.keys()
        if there[name].shape != wanted[name].shape
    ]
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise EngineError(
            f"The weights in {path} do not fit: {'; '.join(sorted(faults)[:3])}{more}. {_AGAIN}"
        )
