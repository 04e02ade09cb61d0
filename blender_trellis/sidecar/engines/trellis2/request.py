# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request asks for, in the engine's own terms, and how much work that is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..stages import Stage
from .mesh import MeshOptions
from .sampler import Mode, Sampling, forwards

STRUCTURE_FLOW, STRUCTURE_DECODER = "sparse_structure_flow_model", "sparse_structure_decoder"
SHAPE_DECODER, SHAPE_ENCODER = "shape_slat_decoder", "shape_slat_encoder"
TEXTURE_DECODER = "tex_slat_decoder"
DINO = "image_cond_model"
"""The network that looks at pictures; pipeline.json has it apart from the others."""

_SEED = 42
"""TRELLIS.2's own, for a request without one."""

MESH_STEPS = 100
"""The mesh stage tells a fraction; so many steps are reported of it."""

_LOAD_SECONDS = 2.0
"""To load a network of 2.5 GB, roughly."""


def shape_flow(size: int) -> str:
    """The network that samples the shape with conditions of `size` pixels."""
    return f"shape_slat_flow_model_{size}"


def texture_flow(size: int) -> str:
    """The network that samples the texture."""
    return f"tex_slat_flow_model_{size}"


@dataclass(frozen=True)
class Route:
    """A pipeline type: the side of the structure's grid, the networks' sizes by the order of the shapes, the resolution.

    `tokens` is a common number of tokens at the end, for the plan; real ones differ by much.
    """

    side: int
    sizes: tuple[int, ...]
    resolution: int
    tokens: int

    @property
    def size(self) -> int:
        """That of the last shape and of the texture."""
        return self.sizes[-1]


ROUTES = {
    "512": Route(32, (512,), 512, 6_000),
    "1024": Route(64, (1024,), 1024, 25_000),
    "1024_cascade": Route(32, (512, 1024), 1024, 25_000),
    "1536_cascade": Route(32, (512, 1024), 1536, 45_000),
}


@dataclass(frozen=True)
class LoraFile:
    """A LoRA that was asked for: its file, its scale, the key of the request that names it, and whose weights it changes."""

    path: Path
    scale: float
    field: str
    networks: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """A request. A retexture has no structure and no shape to sample."""

    seed: int
    pipeline: str
    max_tokens: int
    images: int
    mode: Mode
    structure: Sampling | None
    shape: Sampling | None
    texture: Sampling | None
    loras: tuple[LoraFile, ...]

    @classmethod
    def of(cls, request: dict[str, Any], images: int) -> Wish:
        """What a complete, validated body of `local/trellis-2` asks for."""
        cascades = {512: "512", 1024: "1024_cascade", 1536: "1536_cascade"}
        pipeline = request["pipeline_type"] or cascades[request["resolution"]]
        textured = not request["untextured"]
        networks = {
            "sparse_structure": (STRUCTURE_FLOW,),
            "geometry": (shape_flow(512), shape_flow(1024)),
            "texture": (texture_flow(512), texture_flow(1024)),
        }
        return cls(
            _seed(request),
            pipeline,
            request["max_num_tokens"],
            images,
            _mode(request, images),
            _sampling(request, "ss"),
            _sampling(request, "shape_slat"),
            _sampling(request, "tex_slat") if textured else None,
            tuple(_loras(request, networks)),
        )

    @classmethod
    def of_retexture(cls, request: dict[str, Any], images: int) -> Wish:
        """What a body of `local/trellis-2/retexture` asks for."""
        networks = {"texture": (texture_flow(512), texture_flow(1024))}
        return cls(
            _seed(request),
            str(request["resolution"]),
            0,
            images,
            _mode(request, images),
            None,
            None,
            _sampling(request, "tex_slat"),
            tuple(_loras(request, networks)),
        )

    @property
    def route(self) -> Route:
        return ROUTES[self.pipeline]

    def condition_sizes(self, route: Route) -> list[int]:
        """In how many pixels the pictures are looked at."""
        sizes = {route.size} if self.structure is None else {512, *route.sizes}
        return sorted(sizes)

    def forwards(self) -> Counter[str]:
        """How often each network will be called, if nothing is at hand from earlier jobs."""
        route, count = self.route, Counter[str]()
        count[DINO] = self.images * len(self.condition_sizes(route))
        if self.structure and self.shape:
            count[STRUCTURE_FLOW] = forwards(self.structure, self.images, self.mode)
            count[STRUCTURE_DECODER] = 1
            for size in route.sizes:
                count[shape_flow(size)] = forwards(self.shape, self.images, self.mode)
                count[SHAPE_DECODER] += 1
        else:
            count[SHAPE_ENCODER] = 1
        if self.texture:
            count[texture_flow(route.size)] = forwards(self.texture, self.images, self.mode)
            count[TEXTURE_DECODER] = 1
        return count

    def plan(self, teraflops: float, tokens: int | None = None) -> list[Stage]:
        """The stages. A step is a forward; a share is a guess at its seconds, better once the number of `tokens` is known."""
        route, count = self.route, self.forwards()
        work: dict[str, list[str]] = {
            "image": [DINO],
            "structure": [STRUCTURE_FLOW, STRUCTURE_DECODER],
            "shape": [
                *(shape_flow(size) for size in dict.fromkeys(route.sizes)),
                SHAPE_DECODER,
                SHAPE_ENCODER,
            ],
            "texture": [texture_flow(route.size), TEXTURE_DECODER],
        }
        stages = []
        for name, networks in work.items():
            steps = sum(count[network] for network in networks)
            seconds = sum(
                count[network] * _teraflop(network, tokens or route.tokens) / teraflops
                + _LOAD_SECONDS
                for network in networks
                if count[network]
            )
            if steps:
                stages.append(Stage(name, steps, seconds))
        return [*stages, Stage("mesh", MESH_STEPS, 30.0)]


def _teraflop(network: str, tokens: int) -> float:
    """About how much one forward of a network computes, with `tokens` in the last shape."""
    if network == DINO:
        return 2.0
    if network == STRUCTURE_DECODER:
        return 1.0
    if "flow" not in network:
        return 2.5e-3 * tokens
    if network == STRUCTURE_FLOW:
        tokens = 4096
    elif network == shape_flow(512):
        tokens = min(tokens, ROUTES["512"].tokens)
    seen = 4101 if network.endswith("1024") else 1029
    return tokens * (2.36e9 + 0.184e6 * (tokens + seen)) / 1e12


def mesh_options(request: dict[str, Any], resolution: int) -> MeshOptions:
    """What a body of `local/trellis-2` wishes of the mesh."""
    return MeshOptions(
        decimation_target=request["decimation_target"],
        texture_size=request["texture_size"],
        remesh=request["remesh"],
        resolution=resolution,
        remesh_band=request["remesh_band"],
        remesh_project=request["remesh_project"],
        cone_half_angle=math.radians(request["uv_unwrap_angle_threshold_deg"]),
        refine_iterations=request["uv_unwrap_refine_iterations"],
        global_iterations=request["uv_unwrap_global_iterations"],
        smooth_strength=request["uv_unwrap_smooth_strength"],
        texture_format=request["texture_format"],
        untextured=request["untextured"],
    )


def texture_options(request: dict[str, Any], resolution: int) -> MeshOptions:
    """What a body of `local/trellis-2/retexture` wishes: of the textures alone, since the mesh stays."""
    return MeshOptions(
        decimation_target=0,
        texture_size=request["texture_size"],
        remesh=False,
        resolution=resolution,
        texture_format=request["texture_format"],
    )


def _seed(request: dict[str, Any]) -> int:
    return _SEED if request["seed"] is None else int(request["seed"])


def _mode(request: dict[str, Any], images: int) -> Mode:
    wished: Literal["stochastic", "average"] = request["multi_image"]
    return wished if images > 1 else "single"


def _sampling(request: dict[str, Any], stage: str) -> Sampling:
    low, high = (request[f"{stage}_guidance_interval_{edge}"] for edge in ("start", "end"))
    return Sampling(
        steps=request[f"{stage}_sampling_steps"],
        guidance_strength=request[f"{stage}_guidance_strength"],
        guidance_rescale=request[f"{stage}_guidance_rescale"],
        guidance_interval=(low, high),
        rescale_t=request[f"{stage}_rescale_t"],
    )


def _loras(request: dict[str, Any], networks: Mapping[str, tuple[str, ...]]) -> Sequence[LoraFile]:
    return [
        LoraFile(
            Path(request[f"{role}_lora_path"]),
            request[f"{role}_lora_scale"],
            f"{role}_lora_path",
            of,
        )
        for role, of in networks.items()
        if request[f"{role}_lora_path"]
    ]
