# SPDX-License-Identifier: GPL-3.0-or-later
"""One job's stages: each is found in the cache by what determines it, or computed and kept; with less when memory runs out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from .... import __version__
from ..matte import cut_out, manner
from ..stages import Progress
from . import doubts
from .cache import Arrays, Cache, key
from .memory import Effort, Ladder, Machine, is_of_the_computer, ran_out
from .picture import prepare
from .pipeline import Drawing, NotFinite, Pipeline, Voxels
from .request import (
    DINO,
    MESH_STEPS,
    ROUTES,
    SHAPE_DECODER,
    SHAPE_ENCODER,
    STRUCTURE_DECODER,
    STRUCTURE_FLOW,
    TEXTURE_DECODER,
    Route,
    Wish,
    shape_flow,
    texture_flow,
)
from .sampler import Sampling
from .shelf import Shelf
from .volume import Floats, Ints
from .weights import Checkpoint, Lora

_log = logging.getLogger(__name__)

_MAKES = 2
"""To be raised when a stage makes something else of the same: what is in the cache is then not used again."""

_WORDS = {
    DINO: "Looking at the pictures",
    STRUCTURE_FLOW: "Sampling the structure",
    STRUCTURE_DECODER: "Structure decoded",
    shape_flow(512): "Sampling the shape",
    shape_flow(1024): "Sampling the fine shape",
    SHAPE_DECODER: "Shape decoded",
    SHAPE_ENCODER: "Shape encoded",
    texture_flow(512): "Sampling the texture",
    texture_flow(1024): "Sampling the texture",
    TEXTURE_DECODER: "Texture decoded",
}


class Kept(NamedTuple):
    """A stage's output, and the key that it is kept under, which stands for it in the keys of later stages."""

    key: str
    arrays: Arrays

    def tensor(self, name: str) -> Tensor:
        """One of its arrays; whole numbers as int32."""
        tensor = torch.from_numpy(self.arrays[name])
        return tensor if tensor.is_floating_point() else tensor.int()


class Latent(NamedTuple):
    """A latent shape: the stage that made it, its voxels (N, 3), and the resolution of its model."""

    kept: Kept
    coords: Tensor
    resolution: int

    @property
    def values(self) -> Tensor:
        """(N, C)"""
        return self.kept.tensor("latent")


class Job:
    """A wish, carried out.

    Args:
        images: the pictures, RGB or RGBA, with their backgrounds.
        shelf: where networks stay from job to job.
        matte: the file of the network that cuts subjects out, if it is there.
    """

    def __init__(
        self,
        wish: Wish,
        images: Sequence[Image.Image],
        checkpoint: Checkpoint,
        machine: Machine,
        *,
        cache: Cache,
        shelf: Shelf,
        progress: Progress,
        matte: Path,
    ) -> None:
        """Raises an EngineError where weights or LoRAs are missing or do not fit: before any work is done."""
        self.wish = wish
        self._images = images
        self._checkpoint = checkpoint
        self._machine = machine
        self._cache = cache
        self._shelf = shelf
        self._progress = progress
        self._matte = matte
        self._pictures = [
            key(image.mode, image.size, image.tobytes(), manner(image, matte)) for image in images
        ]
        self._seen: dict[int, Kept] = {}
        self._steps = {stage.name: stage.steps for stage in wish.plan(machine.teraflops)}
        self._stage = ""
        self._done: Counter[str] = Counter()
        self._reused: list[str] = []
        self._lowered: list[str] = []
        self._doubts: list[str] = []
        checkpoint.identity(list(wish.forwards()))
        self._loras = self._read_loras()
        shelf.make_room(machine)  # before anybody asks how much is free
        machine.bound()
        rows = machine.rows()
        self._on_cpu = machine.device.type == "cpu"
        self._ladder = Ladder(Effort(wish.pipeline, wish.max_tokens, rows, self._on_cpu))
        self._pipeline = Pipeline(
            checkpoint,
            machine,
            self._ladder.effort,
            shelf=shelf,
            loras={name: [lora] for name, lora in self._loras.items()},
            check=progress.check,
            worked=self._worked,
        )

    def _read_loras(self) -> dict[str, Lora]:
        """Those that are asked for, by network."""
        loras = {}
        for file in self.wish.loras:
            lora = Lora.read(file.path, file.scale, file.field)
            for name in file.networks:
                if self.wish.forwards()[name]:
                    lora.check(self._checkpoint.blueprint(name), file.field)
                loras[name] = lora  # also of those that lowering may bring in
        return loras

    # -- How it goes ---------------------------------------------------------------------------------

    @property
    def route(self) -> Route:
        """The pipeline, which may have been lowered."""
        return ROUTES[self._ladder.effort.pipeline]

    def finished(self, work: Callable[[], bytes]) -> bytes:
        """What `work` makes; for want of memory it begins again, without the networks of earlier jobs and then with less, for
        want of precision with more, and finds in the cache what is done.

        Raises:
            EngineError: there is no less.
        """
        plan = self.wish.plan(self._machine.teraflops)
        self._progress.step(
            plan[0].name, 0, self._machine.words(sum(stage.share for stage in plan))
        )
        while True:
            try:
                made = work()
                if self._doubts:
                    self._progress.note(doubts.ADVICE)
                self.mesh_step("Model ready", 1.0)
                return made
            except NotFinite:
                if not self._pipeline.exactly():
                    raise
                lower = self._exactly
            except Exception as error:
                if not ran_out(error):
                    raise
                _log.warning("memory ran out in the %s stage: %s", self._stage, error)
                host = is_of_the_computer(error)
                lower = partial(self._spare, of_the_computer=host)
            # Only here, outside of the handler, is nothing left of the frames and their tensors
            self._machine.clean()
            if said := lower():
                self._lowered.append(said)
                self._progress.note(said)
            self._pipeline.effort = self._ladder.effort
            self._done.clear()

    def _spare(self, *, of_the_computer: bool) -> str:
        """Need less memory, and say what that costs; "" if it is only that networks are loaded for their stages again."""
        self._ladder.effort = replace(self._ladder.effort, keeps=False)
        if self._shelf.clear(self._machine):
            words = f"Memory ran out in the {self._stage} stage: going on with one network in it at a time"
            self._advance(0, words)
            return ""
        return self._ladder.down(self._stage, self._machine, of_the_computer=of_the_computer)

    def _exactly(self) -> str:
        return f"The {self._stage} stage ended in no numbers: going on in float32, which is slower"

    def doubt(self, words: str) -> None:
        """Tell, once, why the model may be rubbish; "" if it is not."""
        if words and words not in self._doubts:
            self._doubts.append(words)
            self._progress.note(words)

    def extras(self) -> dict[str, Any]:
        """What the file says of its making; it grows with what is still to be lowered and doubted."""
        return {
            "engine": "trellis-2",
            "version": __version__,
            "pipeline": self._ladder.effort.pipeline,
            "seed": self.wish.seed,
            "images": self.wish.images,
            "device": self._machine.name,
            "precision": str(self._pipeline.machine.flow).removeprefix("torch."),
            "decoder_precision": str(self._pipeline.machine.decoder).removeprefix("torch."),
            "forwards": dict(self._pipeline.forwards),
            "reused": self._reused,
            "lowered": self._lowered,
            "doubts": self._doubts,
        }

    def mesh_step(self, message: str, fraction: float) -> None:
        """How far the mesh stage is."""
        self._stage = "mesh"
        self._progress.step("mesh", round(fraction * MESH_STEPS), message)

    def _worked(self, network: str) -> None:
        self._advance(1, _WORDS[network] + (" (CPU)" if self._on_cpu else ""))

    def _advance(self, steps: int, message: str, *, ready_made: bool = False) -> None:
        self._done[self._stage] += steps
        step = min(self._done[self._stage], self._steps[self._stage])
        self._progress.step(self._stage, step, message, ready_made=ready_made)

    def _kept(
        self,
        stage: str,
        name: str,
        networks: dict[str, int],
        parts: Sequence[Any],
        make: Callable[[], Arrays],
    ) -> Kept:
        """What `make` makes, from the cache if it is there: determined by `parts` and the weights of `networks`.

        `networks` says how often each is called for it.
        """
        outer, self._stage = self._stage, stage
        loras = [(each, *lora.identity) for each, lora in self._loras.items() if each in networks]
        machine = [str(each) for each in astuple(self._machine)]
        weights = self._checkpoint.identity(list(networks))
        found = key(_MAKES, name, machine, weights, loras, list(parts))
        arrays = self._cache.load(found)
        if arrays is None:
            arrays = make()
            self._cache.save(found, arrays)
        else:
            self._reused.append(name)
            message = f"{name.capitalize()} found in the cache"
            self._advance(sum(networks.values()), message, ready_made=True)
        self._stage = outer
        return Kept(found, arrays)

    # -- Image ---------------------------------------------------------------------------------------

    def _condition_key(self, size: int) -> str:
        return key(self._pictures, size, self._checkpoint.identity([DINO]))

    def _conditions(self, size: int) -> list[Tensor]:
        """The tokens of every picture at `size`. All sizes are made when the first is asked for."""
        for each in self.wish.condition_sizes(self.route):
            if each not in self._seen:
                self._seen[each] = self._kept(
                    "image",
                    f"picture at {each}",
                    {DINO: self.wish.images},
                    [self._pictures, each],
                    partial(self._look, each),
                )
        return list(self._seen[size].tensor("tokens")[:, None])

    def _look(self, size: int) -> Arrays:
        return {"tokens": torch.cat(self._pipeline.condition(self._prepared, size)).numpy()}

    @cached_property
    def _prepared(self) -> list[Image.Image]:
        pictures = []
        for image in self._images:
            cut = cut_out(image, self._matte, lambda words: self._advance(0, words))
            pictures.append(prepare(cut))
        return pictures

    # -- Structure -----------------------------------------------------------------------------------

    def structure(self) -> Kept:
        """The occupied voxels: `coords`."""
        wish, side = self.wish, self.route.side
        assert wish.structure
        sampling = wish.structure

        def make() -> Arrays:
            seen = self._conditions(512)
            random = Generator().manual_seed(wish.seed)
            coords = self._pipeline.structure(seen, Drawing(sampling, wish.mode, random), side)
            return {"coords": coords.short().numpy(), "random": random.get_state().numpy()}

        count = wish.forwards()
        networks = {name: count[name] for name in (STRUCTURE_FLOW, STRUCTURE_DECODER)}
        determined = [self._condition_key(512), *self._sampled(sampling), wish.seed, side]
        kept = self._kept("structure", "structure", networks, determined, make)
        self.doubt(doubts.of_structure(kept.arrays["coords"], side))
        return kept

    def _random(self, before: Kept) -> Generator:
        """Random numbers that go on where an earlier stage ended, or begin with the seed where none used any."""
        random = Generator().manual_seed(self.wish.seed)
        if "random" in before.arrays:
            random.set_state(torch.from_numpy(before.arrays["random"]))
        return random

    def _sampled(self, sampling: Sampling) -> list[Any]:
        return [astuple(sampling), self.wish.mode]

    # -- Shape ---------------------------------------------------------------------------------------

    def shape(self) -> Latent:
        """The shape, by one or two networks."""
        structure = self.structure()
        first, *finer = self.route.sizes
        coords = structure.tensor("coords")
        kept = self._shape(structure, coords, structure.key, first)
        if not finer:
            return Latent(kept, coords, self.route.resolution)
        kept, coords, resolution = self._finer(kept, coords, finer[0])
        return Latent(kept, coords, resolution)

    def _shape(self, before: Kept, coords: Tensor, where: str, size: int) -> Kept:
        """The latent at voxels `coords`, which `where` stands for; `before` was sampled last."""
        assert self.wish.shape
        sampling, name = self.wish.shape, shape_flow(size)

        def make() -> Arrays:
            seen = self._conditions(size)
            random = self._random(before)
            drawing = Drawing(sampling, self.wish.mode, random)
            latent = self._pipeline.shape(coords, seen, drawing, size)
            return {"latent": latent.numpy(), "random": random.get_state().numpy()}

        networks = {name: self.wish.forwards()[name]}
        determined = [before.key, where, self._condition_key(size), *self._sampled(sampling)]
        kept = self._kept("shape", f"shape at {size}", networks, determined, make)
        sampled = self._pipeline.unscaled(kept.tensor("latent"), "shape")
        self.doubt(doubts.of_latent(sampled.numpy(), "shape"))
        return kept

    def _finer(self, coarse: Kept, coords: Tensor, size: int) -> Latent:
        """A cascade: the voxels of the coarse shape's model, coarsened to those of a finer latent."""

        def make() -> Arrays:
            voxels = self._pipeline.upsample(coarse.tensor("latent"), coords)
            return {"voxels": voxels.short().numpy()}

        voxels = self._kept("shape", "voxels", {SHAPE_DECODER: 1}, [coarse.key], make)
        wanted = self.route.resolution
        finer, resolution = self._pipeline.cascade(voxels.tensor("voxels"), wanted)
        self._ladder.counted(len(finer))
        for stage in self.wish.plan(self._machine.teraflops, len(finer)):
            self._progress.expect(stage.name, stage.share)
        where = key(voxels.key, resolution)
        return Latent(self._shape(coarse, finer, where, size), finer, resolution)

    def decoded(self, latent: Latent) -> tuple[Kept, Voxels]:
        """The model of a shape: its mesh, `vertices` and `faces`, and its voxels."""

        def make() -> Arrays:
            voxels, vertices, faces = self._pipeline.decode_shape(
                latent.values, latent.coords, latent.resolution
            )
            return {"vertices": vertices, "faces": faces, **_stored(voxels)}

        determined = [latent.kept.key, latent.resolution]
        kept = self._kept("shape", "model", {SHAPE_DECODER: 1}, determined, make)
        counts = (
            len(each) for each in (latent.coords, kept.arrays["coords"], kept.arrays["faces"])
        )
        self.doubt(doubts.of_shape(*counts))
        return kept, _voxels(kept)

    def encoded(self, vertices: Floats, faces: Ints) -> tuple[Latent, Kept, Voxels]:
        """The latent of a mesh that fills the cube from -0.5 to 0.5, and the mesh's voxels."""
        resolution = self.route.resolution

        def make() -> Arrays:
            latent, coords, voxels = self._pipeline.encode_shape(vertices, faces, resolution)
            found = {"latent": latent.numpy(), "latent_coords": coords.short().numpy()}
            return found | _stored(voxels)

        determined = [key(vertices.tobytes(), faces.tobytes()), resolution]
        kept = self._kept("shape", "encoded shape", {SHAPE_ENCODER: 1}, determined, make)
        return Latent(kept, kept.tensor("latent_coords"), resolution), kept, _voxels(kept)

    # -- Texture -------------------------------------------------------------------------------------

    def attributes(self, latent: Latent, model: Kept, voxels: Voxels) -> Floats:
        """The PBR attributes (M, 6), in 0 to 1, of the voxels of a shape's `model`."""
        assert self.wish.texture
        sampling, size = self.wish.texture, self.route.size
        name = texture_flow(size)

        def sample() -> Arrays:
            seen = self._conditions(size)
            drawing = Drawing(sampling, self.wish.mode, self._random(latent.kept))
            made = self._pipeline.texture(latent.values, latent.coords, seen, drawing, size)
            return {"latent": made.numpy()}

        networks = {name: self.wish.forwards()[name]}
        before, shown = latent.kept.key, self._condition_key(size)
        determined = [before, shown, *self._sampled(sampling), self.wish.seed]
        texture = self._kept("texture", "texture", networks, determined, sample)
        sampled = self._pipeline.unscaled(texture.tensor("latent"), "tex")
        self.doubt(doubts.of_latent(sampled.numpy(), "texture"))

        def decode() -> Arrays:
            values = self._pipeline.decode_texture(
                texture.tensor("latent"), latent.coords, voxels.subdivisions
            )
            wild = np.array(doubts.wild(values))
            return {"attributes": np.clip(values, 0, 1).astype(np.float16), "wild": wild}

        determined = [texture.key, model.key]
        kept = self._kept("texture", "colours", {TEXTURE_DECODER: 1}, determined, decode)
        self.doubt(doubts.of_texture(float(kept.arrays["wild"])))
        return kept.arrays["attributes"].astype(np.float32)


def _stored(voxels: Voxels) -> Arrays:
    levels = {f"level{index}": slots for index, slots in enumerate(voxels.subdivisions)}
    return {"coords": voxels.coords.astype(np.int16), **levels}


def _voxels(kept: Kept) -> Voxels:
    levels = sorted(name for name in kept.arrays if name.startswith("level"))
    return Voxels(kept.arrays["coords"].astype(np.int32), [kept.arrays[name] for name in levels])
