# SPDX-License-Identifier: GPL-3.0-or-later
"""The matte: by the picture's alpha, by a network in ONNX (a tiny one, written here), or by colour."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blender_trellis.sidecar.engines import matte
from blender_trellis.sidecar.engines.stages import EngineError
from sidecar.draft_shapes import cutout, photo, union

SUBJECT = cutout(("ellipse", (120, 60, 280, 340)))
NONE = Path("nowhere", matte.FILE)


def _varint(number: int) -> bytes:
    low, high = number & 127, number >> 7
    return bytes([low | 128]) + _varint(high) if high else bytes([low])


def _field(number: int, value: int | bytes | str) -> bytes:
    """A field of a protobuf message: a whole number, or a text, array or message as bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _value(name: str, channels: int) -> bytes:
    dims = b"".join(_field(1, _field(1, size)) for size in (1, channels, 320, 320))
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dims)))


def _node(operator: str, inputs: tuple[str, ...], output: str) -> bytes:
    names = b"".join(_field(1, name) for name in inputs)
    return _field(1, names + _field(2, output) + _field(4, operator))


def network(path: Path, weights: tuple[float, float, float], bias: float) -> Path:
    """A network with U²-Net's input: relu(weights · pixel + bias). Fields by onnx.proto, of github.com/onnx/onnx."""
    arrays = {"w": ((1, 3, 1, 1), weights), "b": ((1,), (bias,))}
    initialisers = b"".join(
        _field(
            5,
            b"".join(_field(1, size) for size in shape)
            + _field(2, 1)
            + _field(8, name)
            + _field(9, np.array(values, "<f4").tobytes()),
        )
        for name, (shape, values) in arrays.items()
    )
    graph = (
        _node("Conv", ("input.1", "w", "b"), "sum")
        + _node("Relu", ("sum",), "d0")
        + _field(2, "tiny")
        + initialisers
        + _field(11, _value("input.1", 3))
        + _field(12, _value("d0", 1))
    )
    path.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13)))
    return path


def said(image: Image.Image, file: Path) -> tuple[Image.Image, str]:
    words: list[str] = []
    cut = matte.cut_out(image, file, words.append)
    (sentence,) = words
    return cut, sentence


def test_a_picture_with_transparency_is_left_as_it_is(tmp_path: Path) -> None:
    image = Image.new("RGBA", (40, 30), (200, 10, 10, 255))
    image.putpixel((0, 0), (7, 8, 9, 254))
    broken = tmp_path / matte.FILE
    broken.write_bytes(b"")
    cut, sentence = said(image, broken)
    assert cut.tobytes() == image.tobytes()
    assert sentence == "Subject by the picture's own transparency"


def test_without_a_network_the_subject_is_cut_out_by_colour() -> None:
    image = photo(SUBJECT, 2.0)
    assert image.mode == "RGB"
    cut, sentence = said(image, NONE)
    found = np.asarray(cut.getchannel("A")) > 127
    assert union(found, np.asarray(SUBJECT.getchannel("A")) > 127) > 0.97
    assert cut.convert("RGB").tobytes() == image.tobytes()
    assert sentence == "Subject cut out by colour (there is no u2net.onnx)"


def test_opaque_alpha_is_no_matte() -> None:
    cut, _ = said(photo(SUBJECT, 2.0).convert("RGBA"), NONE)
    assert cut.getchannel("A").getextrema() == (0, 255)


def test_without_onnxruntime_the_network_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    _, sentence = said(photo(SUBJECT, 2.0), network(tmp_path / matte.FILE, (1, 0, 0), 0))
    assert sentence.startswith("Subject cut out by colour (onnxruntime: ")


def test_a_picture_of_nothing_but_noise_is_refused() -> None:
    noise = np.random.default_rng(1).normal(128, 2, (200, 200, 3)).astype(np.uint8)
    with pytest.raises(EngineError, match="No subject was found") as caught:
        said(Image.fromarray(noise), NONE)
    assert caught.value.field == "image_urls"


def test_what_shows_no_background_is_taken_whole() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8)
    cut, _ = said(Image.fromarray(noise), NONE)
    assert cut.getchannel("A").getextrema() == (255, 255)


def test_the_network_sees_what_it_was_trained_on(tmp_path: Path) -> None:
    """320 × 320 pixels, red first, by the brightest value and ImageNet's numbers; its answer stretched over the picture."""
    pytest.importorskip("onnxruntime", reason="the matte's network is run by onnxruntime")
    colours = np.array([(0, 0, 0), (180, 40, 90), (200, 200, 100)], np.float64)
    image = Image.new("RGB", (600, 400))
    image.paste((180, 40, 90), (0, 150, 600, 400))
    image.paste((200, 200, 100), (0, 280, 600, 400))
    weights, bias = (0.5, 0.25, -0.125), 1.0
    file = network(tmp_path / matte.FILE, weights, bias)
    cut, sentence = said(image, file)
    assert sentence == "Subject cut out by U²-Net"
    seen = (colours / 200 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    answers = np.maximum(seen @ weights + bias, 0)
    assert answers[0] == 0 < answers[1] < answers[2]
    alpha = np.asarray(cut.getchannel("A"))
    for rows, answer in zip((alpha[:140], alpha[160:270], alpha[290:]), answers, strict=True):
        assert np.abs(rows - 255.0 * answer / answers[2]).max() <= 2
    assert cut.size == image.size and cut.convert("RGB").tobytes() == image.tobytes()


def test_specks_far_from_the_subject_do_not_count(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the matte's network is run by onnxruntime")
    image = Image.new("RGB", (320, 320))
    image.paste((255, 255, 255), (100, 100, 220, 220))
    image.paste((255, 255, 255), (10, 10, 14, 14))
    cut, _ = said(image, network(tmp_path / matte.FILE, (1, 0, 0), 3.0))
    assert cut.getchannel("A").getbbox() == (100, 100, 220, 220)


def test_where_the_network_finds_nothing_the_picture_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the matte's network is run by onnxruntime")
    file = network(tmp_path / matte.FILE, (0, 0, 0), 0.5)
    with pytest.raises(EngineError, match="No subject was found"):
        said(photo(SUBJECT, 2.0), file)


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>", bytes(1000)])
def test_a_broken_network_is_named(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("onnxruntime", reason="the matte's network is run by onnxruntime")
    file = tmp_path / matte.FILE
    file.write_bytes(content)
    with pytest.raises(EngineError, match="cannot be used") as caught:
        said(photo(SUBJECT, 2.0), file)
    assert f"Delete {file}" in str(caught.value) and caught.value.field is None
