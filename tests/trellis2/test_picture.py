# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture that the networks see, against the golden vector and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the local engine needs torch")

from blender_trellis.sidecar.engines.stages import EngineError  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.picture import prepare, to_tensor  # noqa: E402
from trellis2.vectors import Vector  # noqa: E402

torch.set_num_threads(1)


def _rgba(vector: Vector) -> Image.Image:
    return Image.fromarray(vector.inputs["rgba"].numpy())


def test_the_subject_is_cut_out_like_the_official_one() -> None:
    vector = Vector.read("preprocess_image")
    prepared = prepare(_rgba(vector))
    assert prepared.mode == "RGB"
    vector.close(np.array(prepared), "rgb")


def test_a_large_picture_is_reduced_first() -> None:
    vector = Vector.read("preprocess_image")
    large = _rgba(vector).resize((1500, 1000))
    assert list(prepare(large).size) == vector.json["out_size_for_1500x1000_version"]


def test_a_picture_without_alpha_is_subject_throughout() -> None:
    white = Image.new("RGB", (40, 20), "white")
    pixels = np.array(prepare(white))
    assert pixels.shape == (38, 38, 3)
    lit = pixels.any((1, 2))
    assert lit.sum() == 20
    assert (pixels[lit] == 255).all()


@pytest.mark.parametrize("alpha", [0, 204])
def test_a_picture_without_a_subject_is_refused(alpha: int) -> None:
    with pytest.raises(EngineError, match="no subject"):
        prepare(Image.new("RGBA", (30, 30), (255, 255, 255, alpha)))


def test_a_subject_of_one_pixel_is_a_picture_still() -> None:
    image = Image.new("RGBA", (30, 30), (0, 0, 0, 0))
    image.putpixel((7, 9), (255, 0, 0, 255))
    prepared = np.array(prepare(image))
    assert prepared.shape == (2, 2, 3)
    assert (prepared == (255, 0, 0)).all(-1).sum() == 1


def test_a_very_long_picture_keeps_a_row() -> None:
    assert min(prepare(Image.new("RGB", (4000, 2), "white")).size) > 0


def test_the_tensor_is_normalised_as_dinov3_expects() -> None:
    image = Image.new("RGB", (50, 50))
    image.paste((255, 0, 51), (0, 0, 25, 50))
    tensor = to_tensor(image, 32)
    assert tensor.shape == (1, 3, 32, 32)
    assert tensor.dtype == torch.float32
    left = torch.tensor([(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225])
    right = torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(tensor[0, :, 16, 2], left)
    torch.testing.assert_close(tensor[0, :, 16, -3], right)
