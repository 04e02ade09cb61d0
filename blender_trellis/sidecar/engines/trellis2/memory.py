# SPDX-License-Identifier: GPL-3.0-or-later
"""What the computer can bear: the device, its precision, how much is worked on at a time, and what to do when it was too much."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..stages import EngineError

_GIB = 2**30
_PLENTY = 20
"""GiB of free memory with which nothing need be saved: the most rows at a time, and networks stay loaded."""

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

    @property
    def name(self) -> str:
        """The device, as people know it."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return {"mps": "Apple's GPU", "cpu": "CPU"}.get(self.device.type, str(self.device))

    def words(self, seconds: float) -> str:
        """Where a job of about so many `seconds` will be computed."""
        precision = str(self.flow).removeprefix("torch.")
        if self.device.type != "cpu":
            return f"Computing on {self.name}, in {precision}"
        about = f"{seconds / 3600:.0f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"
        return f"Computing on the CPU, in {precision}, which takes very long: about {about}.{_why_not()}"

    def rows(self) -> int:
        """Tokens that a transformer works on at a time, by the memory that is free."""
        if self.device.type == "mps":
            return 2048  # its attention holds the whole matrix
        if self.device.type == "cpu":
            return 4096
        free = self.free() / _GIB
        return next(
            rows
            for least, rows in ((_PLENTY, 65536), (10, 16384), (7, 8192), (0, 4096))
            if free >= least
        )

    def free(self) -> int:
        """Bytes of the device's memory that nobody uses; 0 where that cannot be told."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        return available() if self.device.type == "cpu" else 0

    def has_plenty(self) -> bool:
        """Whether networks may stay loaded beside what is still to be done."""
        return self.free() >= _PLENTY * _GIB

    def bound(self) -> None:
        """Have memory run out where the GPU's ends. On Windows its driver goes on in the computer's, many times slower.

        What others hold but do not use Windows moves away, so half of it may be taken in any case. Source:
        https://nvidia.custhelp.com/app/answers/detail/a_id/5490
        """
        if self.device.type == "cuda" and os.name == "nt":
            free, total = torch.cuda.mem_get_info(self.device)
            share = (free + torch.cuda.memory_reserved(self.device)) / total
            torch.cuda.set_per_process_memory_fraction(min(max(share, 0.5), 1.0), self.device)

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def clean(self) -> None:
        """Give back what no tensor uses any more."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()


def available(root: Path = Path("/")) -> int:
    """Bytes of the computer's memory that Linux, or the container's bound, would let a program have; 0 on other systems.

    macOS has no such figure, and on Windows nobody could replace a file of weights that stays mapped.
    """
    try:
        lines = (root / "proc/meminfo").read_text("ascii").splitlines()
        told = dict(line.split(":", 1) for line in lines)
        free = int(told["MemAvailable"].removesuffix("kB")) * 1024
    except (OSError, ValueError, KeyError):
        return 0
    group = root / "sys/fs/cgroup"
    with suppress(OSError, ValueError):  # there is no group, or "max" for no bound
        bound = int((group / "memory.max").read_text("ascii"))
        free = min(free, bound - int((group / "memory.current").read_text("ascii")))
    return max(free, 0)


def _device(name: str) -> torch.device:
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        if os.environ.get("TRELLIS_DEVICE"):
            raise EngineError(
                f"TRELLIS_DEVICE is {name!r}, which cannot be used here: {reason}. Set it to cuda, mps or cpu, or leave it out."
            ) from error
        raise EngineError(
            f"This computer's GPU cannot be used ({reason}). Close other programs that use it, update its driver, install "
            "TRELLIS.2 again, or set TRELLIS_DEVICE=cpu to compute on the CPU, which is slow."
        ) from error


def _why_not() -> str:
    """Why there is no GPU, as a sentence to be appended; "" where none was expected."""
    made_for = torch.version.cuda or torch.version.hip
    if made_for is None or os.environ.get("TRELLIS_DEVICE"):
        return ""
    return " PyTorch finds no GPU that it can use; its driver may be too old."


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


_WORDS = (
    "out of memory",
    "outofmemory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
    "invalid buffer size",
)
"""What libraries say when memory runs out: CUDA, HIP, the allocators of the CPU, cuBLAS and cuDNN, Metal."""


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out, on any device: only CUDA has a class for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(each in str(error).lower() for each in _WORDS)


def is_of_the_computer(error: BaseException) -> bool:
    """Whether it was the computer's own memory that ran out, not a GPU's."""
    return isinstance(error, MemoryError) or "defaultcpuallocator" in str(error).lower()


@dataclass(frozen=True)
class Effort:
    """How a job is carried out: what can be lowered when memory runs out.

    `rows` are worked on at a time; `pipeline` and `max_tokens` are what the request asked for, or less. `decoder_on_cpu` leaves
    the GPU more memory and the computer less. `keeps`: networks stay loaded for the next job.
    """

    pipeline: str
    max_tokens: int
    rows: int
    decoder_on_cpu: bool = False
    keeps: bool = True


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

    def counted(self, tokens: int) -> None:
        """A cascade has so many tokens: its limit must be lowered below that to change anything."""
        self.effort = replace(self.effort, max_tokens=min(self.effort.max_tokens, tokens + 1))

    def down(self, stage: str, machine: Machine, *, of_the_computer: bool) -> str:
        """Lower the effort; returns what is to be told of it.

        Args:
            of_the_computer: it was the computer's memory that ran out, not the GPU's.

        Raises:
            EngineError: it cannot be lowered any more.
        """
        for rung in _RUNGS:
            if stage not in rung.helps or (of_the_computer and rung.lower is _decoder_on_cpu):
                continue
            if lowered := rung.lower(self.effort):
                self.effort = lowered
                return f"Memory ran out in the {stage} stage: {rung.words(lowered)}"
        raise EngineError(_bottom(stage, of_the_computer or machine.device.type == "cpu"))


def _bottom(stage: str, of_the_computer: bool) -> str:
    if of_the_computer:
        what = (
            "choose a lower decimation target and texture size"
            if stage == "mesh"
            else "let the system have a larger page file (swap)"
        )
        return (
            f"The computer's memory does not suffice for the {stage} stage, even at the lowest resolution. "
            f"Close other programs, or {what}."
        )
    return (
        f"The GPU's memory does not suffice for the {stage} stage, even at the lowest resolution. "
        "Close other programs that use it, or set TRELLIS_DEVICE=cpu to compute on the CPU, which is slow."
    )
