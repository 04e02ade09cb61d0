# SPDX-License-Identifier: GPL-3.0-or-later
"""What the computer can bear: the device, its precision, how much is worked on at a time, and what to do when it was too much."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..stages import EngineError

_GIB = 2**30
_FEWEST_ROWS = 1024
"""Fewer save nothing that counts."""

_LOWER = {"1536_cascade": "1024_cascade", "1024_cascade": "512", "1024": "512"}


@dataclass(frozen=True)
class Machine:
    """Where networks run, and in which precision: `flow` is that of the transformers, `decoder` that of the autoencoders."""

    device: torch.device
    flow: torch.dtype = torch.float32
    decoder: torch.dtype = torch.float32

    @classmethod
    def found(cls) -> Machine:
        """The best that there is; the environment variable TRELLIS_DEVICE (cuda, cuda:1, mps, cpu) chooses another.

        The transformers overflow in float16, so where there is no bfloat16 they compute in float32. A CPU's bfloat16 is
        used only where it has instructions for it; its float16 is ten times slower than that.

        Raises:
            EngineError: TRELLIS_DEVICE names what is not there.
        """
        device = _device(os.environ.get("TRELLIS_DEVICE") or _best_device())
        if device.type == "cuda":
            half = torch.cuda.is_bf16_supported(including_emulation=False)
            return cls(device, torch.bfloat16 if half else torch.float32, torch.float16)
        if device.type == "mps":
            return cls(
                device, torch.bfloat16 if _mps_has_bfloat16() else torch.float32, torch.float16
            )
        able = torch.cpu.get_capabilities()
        half = able.get("avx512_bf16") or able.get("amx_bf16")
        return cls(device, torch.bfloat16 if half else torch.float32)

    @property
    def teraflops(self) -> float:
        """A guess at its speed, for the first estimate of how long the parts take."""
        return {"cuda": 60.0, "mps": 5.0}.get(self.device.type, 0.05 * torch.get_num_threads())

    def rows(self) -> int:
        """Tokens that a transformer works on at a time, by the memory that is free."""
        if self.device.type == "mps":
            return 2048  # its attention holds the whole matrix
        if self.device.type == "cpu":
            return 4096
        free = torch.cuda.mem_get_info(self.device)[0] / _GIB
        return next(
            rows
            for least, rows in ((20, 65536), (10, 16384), (7, 8192), (0, 4096))
            if free >= least
        )

    def clean(self) -> None:
        """Give back what no tensor uses any more."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()


def _device(name: str) -> torch.device:
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise EngineError(
            f"TRELLIS_DEVICE is {name!r}, which cannot be used here: {error}. Set it to cuda, mps or cpu, or leave it out."
        ) from error


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _mps_has_bfloat16() -> bool:
    """It depends on the version of macOS; torch has no question for it."""
    try:
        torch.ones(2, 2, dtype=torch.bfloat16, device="mps").matmul(
            torch.ones(2, 2, dtype=torch.bfloat16, device="mps")
        )
    except (RuntimeError, TypeError):
        return False
    return True


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out, on any device: only CUDA has a class for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    words = (
        "out of memory",
        "not enough memory",
        "can't allocate memory",
        "cannot allocate memory",
    )
    return isinstance(error, RuntimeError) and any(each in text for each in words)


@dataclass(frozen=True)
class Effort:
    """How a job is carried out: what can be lowered when memory runs out.

    `rows` are worked on at a time; `pipeline` and `max_tokens` are what the request asked for, or less.
    """

    pipeline: str
    max_tokens: int
    rows: int
    decoder_on_cpu: bool = False


@dataclass(frozen=True)
class _Rung:
    """One way to need less: the stages that it helps, the next effort (None if it can't be lowered), and how to tell it."""

    helps: tuple[str, ...]
    lower: Callable[[Effort], Effort | None]
    words: Callable[[Effort], str]


def _fewer_rows(effort: Effort) -> Effort | None:
    rows = effort.rows // 4
    return replace(effort, rows=rows) if rows >= _FEWEST_ROWS else None


def _decoder_on_cpu(effort: Effort) -> Effort | None:
    return None if effort.decoder_on_cpu else replace(effort, decoder_on_cpu=True)


def _fewer_tokens(effort: Effort) -> Effort | None:
    tokens = effort.max_tokens * 2 // 3
    able = effort.pipeline == "1536_cascade" and tokens >= 8192
    return replace(effort, max_tokens=tokens) if able else None


def _lower_resolution(effort: Effort) -> Effort | None:
    lower = _LOWER.get(effort.pipeline)
    return replace(effort, pipeline=lower) if lower else None


_RUNGS = (
    _Rung(
        ("structure", "shape", "texture"),
        _fewer_rows,
        lambda effort: f"going on with {effort.rows} rows at a time",
    ),
    _Rung(
        ("structure", "shape", "texture"),
        _decoder_on_cpu,
        lambda _: "going on with the decoders on the CPU",
    ),
    _Rung(
        ("shape", "texture", "mesh"),
        _fewer_tokens,
        lambda effort: f"going on with {effort.max_tokens} tokens at most",
    ),
    _Rung(
        ("image", "shape", "texture", "mesh"),
        _lower_resolution,
        lambda effort: f"going on with the pipeline {effort.pipeline}",
    ),
)


class Ladder:
    """The way down: each time memory runs out, the first rung that helps the stage in which it did."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort

    def down(self, stage: str, machine: Machine) -> str:
        """Lower the effort; returns what is to be told of it.

        Raises:
            EngineError: it cannot be lowered any more.
        """
        for rung in _RUNGS:
            lowered = rung.lower(self.effort) if stage in rung.helps else None
            if lowered:
                self.effort = lowered
                return f"Memory ran out in the {stage} stage: {rung.words(lowered)}"
        raise EngineError(_bottom(stage, machine))


def _bottom(stage: str, machine: Machine) -> str:
    if stage == "mesh" or machine.device.type == "cpu":
        return (
            f"The computer's memory does not suffice for the {stage} stage, even at the lowest resolution. "
            "Close other programs, or choose a lower decimation target and texture size."
        )
    return (
        f"The GPU's memory does not suffice for the {stage} stage, even at the lowest resolution. "
        "Close other programs that use it, or set TRELLIS_DEVICE=cpu to compute on the CPU, which is slow."
    )
