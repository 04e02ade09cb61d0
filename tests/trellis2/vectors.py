# SPDX-License-Identifier: GPL-3.0-or-later
"""The golden vectors in tests/data/golden: what the official modules compute with small random weights.

Import this only after `pytest.importorskip("torch")`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


@dataclass(frozen=True)
class Vector:
    """One case. The names of tensors are those of the file without their prefix `w.`, `in.` or `out.`."""

    json: dict[str, Any]
    config: dict[str, Any]
    weights: dict[str, torch.Tensor]
    """float32; every value is exact in the float16 that the file holds."""
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]

    @classmethod
    def read(cls, name: str) -> Vector:
        description = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
        groups: dict[str, dict[str, torch.Tensor]] = {"w": {}, "in": {}, "out": {}}
        for key, tensor in load_file(GOLDEN / f"{name}.safetensors").items():
            group, _, rest = key.partition(".")
            groups[group][rest] = tensor
        weights = {key: tensor.float() for key, tensor in groups["w"].items()}
        return cls(description, description.get("config", {}), weights, groups["in"], groups["out"])

    def close(
        self, actual: torch.Tensor | np.ndarray[Any, Any], name: str, rule: str | None = None
    ) -> None:
        """Assert that `actual` is the output `name`: integers exactly, numbers within the tolerance that the file states.

        Args:
            rule: the key in the file's table of tolerances where it is another than `name`.
        """
        expected = self.outputs[name]
        tolerance = self.json["tolerance"]
        if isinstance(tolerance, dict) and "atol" not in tolerance:
            tolerance = tolerance[rule or name]
        if tolerance == "exact" or not expected.is_floating_point():
            tolerance = {"atol": 0.0}
        torch.testing.assert_close(
            torch.as_tensor(actual),
            expected,
            atol=tolerance["atol"],
            rtol=tolerance.get("rtol", 0.0),
            check_dtype=False,
            msg=lambda text: f"{name}: {text}",
        )
