# SPDX-License-Identifier: GPL-3.0-or-later
"""The flow sampler of all three stages: Euler steps from noise (t = 1) to sample (t = 0), guided within an interval."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

Mode = Literal["single", "stochastic", "average"]
"""How several images condition one object: only the first; image i mod n at step i; the mean of all their predictions."""

Velocity = Callable[[Tensor, float, Tensor], Tensor]
"""(x, t, condition) -> dx/dt in the shape of x."""


@dataclass(frozen=True)
class Sampling:
    """Parameters of one stage, named as in the official pipeline.json."""

    steps: int
    guidance_strength: float
    guidance_rescale: float
    guidance_interval: tuple[float, float]
    rescale_t: float

    def strength(self, t: float) -> float:
        """The guidance at `t`: 1 follows the condition alone, 0 the negative condition alone."""
        low, high = self.guidance_interval
        return self.guidance_strength if low <= t <= high else 1.0


def schedule(sampling: Sampling) -> list[tuple[float, float]]:
    """(t, next smaller t) of each step.

    In float64 and in the official order of operations: with the official parameters of the shape stage one t is 0.6, the
    lower end of the guidance interval, and any other rounding would leave that step unguided.
    """
    even = np.linspace(1, 0, sampling.steps + 1)
    times = (sampling.rescale_t * even / (1 + (sampling.rescale_t - 1) * even)).tolist()
    return list(itertools.pairwise(times))


def forwards(sampling: Sampling, images: int = 1, mode: Mode = "single") -> int:
    """How often `sample` calls the network in a whole run with so many images."""
    conditioned = images if mode == "average" else 1
    return sum(
        (strength != 0) * conditioned + (strength != 1)
        for strength in (sampling.strength(t) for t, _ in schedule(sampling))
    )


def sample(
    velocity: Velocity,
    noise: Tensor,
    conditions: Sequence[Tensor],
    negative: Tensor,
    sampling: Sampling,
    *,
    mode: Mode = "single",
    sigma_min: float = 1e-5,
    step: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """The sample that the flow makes of `noise`.

    Args:
        noise: of one object, in any shape: a grid (1, C, R, R, R) or the tokens (N, C) of a sparse latent.
        conditions: one per image.
        negative: the condition away from which guidance leads.
        step: called with the number of steps done, after each; an exception raised in it ends the run.
    """
    x = noise
    for index, (t, t_next) in enumerate(schedule(sampling)):
        strength = sampling.strength(t)
        if strength == 0:
            v = velocity(x, t, negative)
        else:
            v = _mean([velocity(x, t, shown) for shown in _shown(conditions, index, mode)])
            if strength != 1:
                guided = strength * v + (1 - strength) * velocity(x, t, negative)
                slope = sigma_min + (1 - sigma_min) * t
                v = _rescaled(guided, v, (1 - sigma_min) * x, slope, sampling.guidance_rescale)
        x = x - (t - t_next) * v
        step(index + 1)
    return x


def _shown(conditions: Sequence[Tensor], index: int, mode: Mode) -> Sequence[Tensor]:
    """The conditions that the step `index` follows."""
    if mode == "average":
        return conditions
    return [conditions[index % len(conditions) if mode == "stochastic" else 0]]


def _mean(predictions: Sequence[Tensor]) -> Tensor:
    total = predictions[0]
    for prediction in predictions[1:]:
        total = total + prediction
    return total / len(predictions)


def _rescaled(guided: Tensor, plain: Tensor, base: Tensor, slope: float, amount: float) -> Tensor:
    """The velocity `guided`, with the spread of its x0 drawn by `amount` towards that of the velocity `plain`.

    x0 = base - slope v, since x = (1 - t) x0 + (sigma_min + (1 - sigma_min) t) noise.
    """
    if amount == 0:
        return guided
    x0 = base - slope * guided
    # The official code takes the deviations now with, now without bias: it cancels in their ratio.
    ratio = (base - slope * plain).std() / x0.std()
    return (base - x0 * (1 + amount * (ratio - 1))) / slope
