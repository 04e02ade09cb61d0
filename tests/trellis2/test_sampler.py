# SPDX-License-Identifier: GPL-3.0-or-later
"""The flow sampler against the golden vectors, and the ways in which several images are used."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="the local engine needs torch")

from blender_trellis.sidecar.engines.trellis2.sampler import (  # noqa: E402
    Mode,
    Sampling,
    forwards,
    sample,
    schedule,
)
from trellis2.vectors import Vector  # noqa: E402

torch.set_num_threads(1)

RUNS = ["ss", "shape", "tex", "neg_only", "plain_cfg"]
STRUCTURE = Sampling(12, 7.5, 0.7, (0.6, 1.0), 5.0)
SHAPE = Sampling(12, 7.5, 0.5, (0.6, 1.0), 3.0)
TEXTURE = Sampling(12, 1.0, 0.0, (0.6, 0.9), 3.0)


def _sampling(vector: Vector, run: str) -> Sampling:
    told = vector.json["runs"][run]
    low, high = told["guidance_interval"]
    return Sampling(
        told["steps"],
        told["guidance_strength"],
        told.get("guidance_rescale", 0.0),
        (low, high),
        told["rescale_t"],
    )


class Toy:
    """The vectors' velocity, which records where it was asked."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.conditions: list[torch.Tensor] = []
        self.xs: list[torch.Tensor] = []

    def __call__(self, x: torch.Tensor, t: float, c: torch.Tensor) -> torch.Tensor:
        self.times.append(t)
        self.conditions.append(c)
        if not any(x is seen for seen in self.xs):
            self.xs.append(x)
        return 0.5 * x + t * c - 0.25 * c**2


@pytest.mark.parametrize("run", RUNS)
def test_times_are_exactly_the_official_ones(run: str) -> None:
    vector = Vector.read("sampler_dense")
    expected = vector.json["runs"][run]["t_seq"]
    pairs = schedule(_sampling(vector, run))
    assert [t for t, _ in pairs] == expected[:-1]
    assert [t for _, t in pairs] == expected[1:]


@pytest.mark.parametrize("run", RUNS)
def test_a_dense_latent_is_sampled_like_the_official_one(run: str) -> None:
    vector = Vector.read("sampler_dense")
    sampling = _sampling(vector, run)
    noise, condition, negative = (vector.inputs[key] for key in ("noise", "cond", "neg_cond"))
    ends, firsts, firsts_x0, middles = [], [], [], []
    for one in range(len(noise)):
        toy = Toy()
        ends.append(
            sample(
                toy,
                noise[one : one + 1],
                [condition[one : one + 1]],
                negative[one : one + 1],
                sampling,
            )
        )
        told = vector.json["runs"][run]
        assert torch.tensor(toy.times).allclose(torch.tensor(told["model_call_t"]), atol=1e-7)
        assert len(toy.times) == told["n_forward"]
        xs = [*toy.xs, ends[-1]]
        firsts.append(xs[1])
        middles.append(xs[sampling.steps // 2 + 1])
        (t, t_next), sigma_min = schedule(sampling)[0], vector.json["sigma_min"]
        slope = sigma_min + (1 - sigma_min) * t
        firsts_x0.append((1 - sigma_min) * xs[0] - slope * (xs[0] - xs[1]) / (t - t_next))
    vector.close(torch.cat(ends), f"{run}.samples")
    vector.close(torch.cat(firsts), f"{run}.x_first")
    vector.close(torch.cat(middles), f"{run}.x_mid")
    vector.close(torch.cat(firsts_x0), f"{run}.x0_first")


@pytest.mark.parametrize("run", RUNS)
def test_a_sparse_latent_is_sampled_like_the_official_one(run: str) -> None:
    vector = Vector.read("sampler_sparse")
    sampling = _sampling(vector, run)
    owner = vector.inputs["coords"][:, 0]
    ends, firsts = [], []
    for one, (condition, negative) in enumerate(
        zip(vector.inputs["cond"], vector.inputs["neg_cond"], strict=True)
    ):
        toy = Toy()
        ends.append(
            sample(toy, vector.inputs["noise"][owner == one], [condition], negative, sampling)
        )
        firsts.append([*toy.xs, ends[-1]][1])
        assert len(toy.times) == vector.json["runs"][run]["n_forward"]
    vector.close(torch.cat(ends), f"{run}.samples")
    vector.close(torch.cat(firsts), f"{run}.x_first")


def test_forwards_of_the_official_parameters() -> None:
    assert [forwards(sampling) for sampling in (STRUCTURE, SHAPE, TEXTURE)] == [22, 21, 12]


def test_the_step_at_exactly_the_end_of_the_interval_is_guided() -> None:
    times = [t for t, _ in schedule(SHAPE)]
    assert times[8] == 0.6
    assert SHAPE.strength(times[8]) == 7.5
    assert SHAPE.strength(times[9]) == 1.0


@pytest.mark.parametrize(
    ("sampling", "images", "mode", "expected"),
    [
        (STRUCTURE, 3, "single", 22),
        (STRUCTURE, 3, "stochastic", 22),
        (STRUCTURE, 3, "average", 10 * 4 + 2 * 3),
        (TEXTURE, 3, "average", 12 * 3),
        (Sampling(5, 0.0, 0.0, (0.0, 1.0), 1.0), 3, "average", 5),
        (Sampling(4, 3.0, 0.0, (0.5, 1.0), 1.0), 1, "average", 3 * 2 + 1),
    ],
)
def test_forwards_are_counted_before_they_are_made(
    sampling: Sampling, images: int, mode: Mode, expected: int
) -> None:
    toy = Toy()
    conditions = [torch.full((1, 2), float(image)) for image in range(images)]
    sample(toy, torch.randn(4, 2), conditions, torch.zeros(1, 2), sampling, mode=mode)
    assert forwards(sampling, images, mode) == len(toy.times) == expected


def _calls(mode: Mode, images: int) -> list[tuple[float, list[int]]]:
    """(t, images asked for at it; the negative condition is -1) of a run."""
    toy = Toy()
    conditions = [torch.full((1, 2), float(image)) for image in range(images)]
    sampling = Sampling(4, 3.0, 0.5, (0.5, 1.0), 1.0)
    sample(toy, torch.randn(4, 2), conditions, torch.full((1, 2), -1.0), sampling, mode=mode)
    calls: list[tuple[float, list[int]]] = []
    for t, condition in zip(toy.times, toy.conditions, strict=True):
        if not calls or calls[-1][0] != t:
            calls.append((t, []))
        calls[-1][1].append(int(condition[0, 0]))
    return calls


def test_stochastic_follows_one_image_after_the_other() -> None:
    assert _calls("stochastic", 3) == [(1.0, [0, -1]), (0.75, [1, -1]), (0.5, [2, -1]), (0.25, [0])]


def test_single_follows_the_first_image() -> None:
    assert _calls("single", 3) == [(1.0, [0, -1]), (0.75, [0, -1]), (0.5, [0, -1]), (0.25, [0])]


def test_average_asks_for_every_image_at_every_step_and_once_for_none() -> None:
    asked = [0, 1, 2]
    assert _calls("average", 3) == [
        (1.0, [*asked, -1]),
        (0.75, [*asked, -1]),
        (0.5, [*asked, -1]),
        (0.25, asked),
    ]


def test_average_follows_the_mean_of_the_predictions() -> None:
    """For a velocity linear in the condition, that is the prediction for the mean of the conditions."""

    def linear(x: torch.Tensor, t: float, c: torch.Tensor) -> torch.Tensor:
        return 0.5 * x + t * c

    torch.manual_seed(1)
    noise, conditions, negative = torch.randn(6, 2), torch.randn(3, 1, 2), torch.randn(1, 2)
    averaged = sample(linear, noise, list(conditions), negative, SHAPE, mode="average")
    expected = sample(linear, noise, [conditions.mean(0)], negative, SHAPE)
    torch.testing.assert_close(averaged, expected, atol=1e-4, rtol=1e-4)


def test_rescaled_fully_the_guided_x0_has_the_spread_of_the_unguided_one() -> None:
    """With a sigma_min so large that it shows; the official 1e-5 hides below the vectors' tolerance."""
    torch.manual_seed(2)
    noise, condition, negative = torch.randn(3, 50, 4)
    sampling = Sampling(2, 3.0, 1.0, (0.4, 0.6), 1.0)  # only the step at t = 0.5 is guided
    seen: list[torch.Tensor] = []

    def velocity(x: torch.Tensor, t: float, c: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return c

    end = sample(velocity, noise, [condition], negative, sampling, sigma_min=0.3)
    x = seen[-1]
    guided, slope = (x - end) / 0.5, 0.3 + 0.7 * 0.5
    spreads = [(0.7 * x - slope * v).std() for v in (guided, condition)]
    torch.testing.assert_close(spreads[0], spreads[1])
    assert (0.7 * x - slope * (3 * condition - 2 * negative)).std() > 1.5 * spreads[1]


def test_every_step_is_told_and_may_end_the_run() -> None:
    class EndedError(Exception):
        pass

    def until(last: int, told: list[int]) -> Callable[[int], None]:
        def step(done: int) -> None:
            told.append(done)
            if done == last:
                raise EndedError

        return step

    toy, told = Toy(), list[int]()
    one = torch.ones(1, 2)
    sample(toy, torch.randn(4, 2), [one], -one, TEXTURE, step=until(99, told))
    assert told == list(range(1, 13))
    toy, told = Toy(), list[int]()
    with pytest.raises(EndedError):
        sample(toy, torch.randn(4, 2), [one], -one, TEXTURE, step=until(5, told))
    assert told == [1, 2, 3, 4, 5]
    assert len(toy.times) == 5
