# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input on the command line: a clear error, exit code 2 or 3, and nothing left behind."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image

from blender_trellis.config import Config
from gate import Gate
from harness import Ran, run_trellis

pytestmark = pytest.mark.usefixtures("config")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _make_images(folder: Path) -> None:
    (folder / "text.png").write_text("I am not a picture.\n")
    (folder / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.effect_noise((300, 300), 90).convert("RGB").save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:9000])
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IEND", b""))
    Image.new("RGBA", (64, 64)).save(folder / "glass.png")
    Image.new("RGBA", (64, 64), "red").save(folder / "good ö.png")


@dataclass(frozen=True)
class Case:
    """Arguments after `generate`, and what the error must say."""

    arguments: tuple[str, ...]
    kind: str
    words: str


CASES = {
    "no file": Case(
        ("missing.png",), "ImageError", "There is no image missing.png. Check the path."
    ),
    "text": Case(
        ("text.png",),
        "ImageError",
        "text.png is not a picture that can be read. Use one of PNG, JPEG",
    ),
    "truncated": Case(
        ("cut.jpg",), "ImageError", "cut.jpg cannot be read, it may be cut off or damaged"
    ),
    "0 bytes": Case(("empty.png",), "ImageError", "empty.png is empty (0 bytes)"),
    "1x1": Case(("dot.png",), "ImageError", "dot.png has 1×1 pixels; at least 16×16 are needed"),
    "30000x30000": Case(
        ("huge.png",), "ImageError", "huge.png has too many pixels; at most 80 megapixels"
    ),
    "transparent": Case(("glass.png",), "ImageError", "glass.png is wholly transparent"),
    "endpoint": Case(
        ("good ö.png", "--endpoint", "local/drat"),
        "EndpointError",
        "There is no endpoint 'local/drat'",
    ),
    "unknown parameter": Case(
        ("good ö.png", "--set", "texture_sise=1024"), "ParameterError", "Did you mean texture_size?"
    ),
    "out of range": Case(
        ("good ö.png", "--set", "decimation_target=3"),
        "ParameterError",
        "decimation_target must be a whole number from 5000 to 2000000 vertices, not 3.",
    ),
    "no value": Case(
        ("good ö.png", "--set", "seed"), "ParameterError", "--set takes NAME=VALUE, not 'seed'"
    ),
    "three images for one": Case(
        ("good ö.png", "good ö.png", "good ö.png", "--endpoint", "runware/trellis-2"),
        "EndpointError",
        "runware/trellis-2 takes one image, and 3 were given. Remove some.",
    ),
    "five views": Case(
        ("good ö.png",) * 5, "EndpointError", "takes 4 images at most, and 5 were given"
    ),
    "output folder": Case(
        ("good ö.png", "--output", "no/where.glb"), "OutputError", "there is no folder"
    ),
    "output suffix": Case(
        ("good ö.png", "--output", "model.obj"), "OutputError", "end its name in .glb or .blend"
    ),
    "output is a folder": Case(
        ("good ö.png", "--output", "folder.glb"), "OutputError", "it is a folder"
    ),
}


def _left_behind(home: Path) -> list[str]:
    """Files with content that a refused request may not leave."""
    return [str(path) for name in ("inputs", "results") for path in (home / name).glob("*")]


@pytest.mark.parametrize("name", CASES)
def test_bad_input(tmp_path: Path, home: Path, name: str) -> None:
    case = CASES[name]
    _make_images(tmp_path)
    (tmp_path / "folder.glb").mkdir()
    before = sorted(tmp_path.iterdir())
    done = run_trellis("generate", *case.arguments, "--json", cwd=tmp_path)
    assert done.code == 2, done
    assert done.last == {
        "event": "error",
        "state": "failed",
        "kind": case.kind,
        "message": done.last["message"],
        "job_id": done.last["job_id"],
        "request_id": None,
    }
    assert case.words in done.last["message"]
    assert "Traceback" not in done.err
    assert sorted(path for path in tmp_path.iterdir() if path != home) == [
        p for p in before if p != home
    ]
    assert _left_behind(home) == []
    assert run_trellis("jobs", "list", "--json").out == ""
    words = run_trellis("generate", *case.arguments, cwd=tmp_path)
    assert (words.code, words.out) == (2, "")
    assert words.err.strip() == f"Error: {done.last['message']}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "required: COMMAND"),
        (("generate",), "required: IMAGE"),
        (("jobs", "paint"), "invalid choice"),
        (("jobs", "show"), "Use it as `jobs show ID`"),
        (("jobs", "list", "nobody"), "Use it as `jobs list`"),
        (("jobs", "adopt", "nobody"), "Use it as `jobs adopt ID REQUEST`"),
        (("jobs", "show", "nobody"), "There is no job nobody"),
        (("jobs", "cancel", "nobody"), "There is no job nobody"),
        (("jobs", "forget", "nobody"), "There is no job nobody"),
        (("endpoints", "local/nothing"), "There is no endpoint"),
        (("generate", "a.png", "--timeout", "soon"), "'soon' is not a number from 0 on"),
        (("generate", "a.png", "--max-cost", "-1"), "'-1' is not a number from 0 on"),
        (("generate", ""), "The image has no name"),
        (("generate", "a.png", "--output", ""), "The output has no name"),
        (("generate", "a.png", "--endpoint", "fal-ai/trelis-2"), "Did you mean fal-ai/trellis-2?"),
    ],
)
def test_usage(arguments: tuple[str, ...], words: str) -> None:
    done = run_trellis(*arguments)
    assert done.code == 2
    assert words in done.err


def test_plain_http_to_another_computer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS_SIDECAR_URL", "http://studio.example:8000")
    done = run_trellis("generate", "a.png", "--json")
    assert done.code == 2
    assert "TRELLIS_SIDECAR_URL must begin with https://" in done.last["message"]


@pytest.fixture
def hostile(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A service that delivers what a test tells it to."""
    with Gate(config.sidecar_url) as gate:
        monkeypatch.setenv("TRELLIS_SIDECAR_URL", gate.url)
        yield gate


def test_a_hostile_model_from_the_service(
    tmp_path: Path, home: Path, picture: Path, hostile: Gate
) -> None:
    document = json.dumps(
        {"asset": {"version": "2.0"}, "buffers": [{"uri": "file:///etc/passwd", "byteLength": 9}]}
    )
    text = document.encode() + b" " * (-len(document) % 4)
    bad = b"glTF" + struct.pack("<IIII", 2, 20 + len(text), len(text), 0x4E4F534A) + text
    hostile.on("^GET /files", "after", lambda: httpx.Response(200, content=bad))
    output = tmp_path / "x.glb"
    done = run_trellis("generate", picture, "--output", output, "--json")
    assert done.code == 3
    assert done.last["kind"] == "ResultError"
    assert "refers to a buffer outside of itself" in done.last["message"]
    assert not output.exists()
    assert list((home / "results").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "kleine Platte"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def _free(place: Path) -> int:
    state = os.statvfs(place)
    return state.f_bavail * state.f_frsize


@pytest.mark.skipif(
    os.name != "posix" or os.getuid() != 0, reason="only root can mount a small disk"
)
class TestFullDisk:
    """What happens where the bytes run out, for each place that is written."""

    def test_output(self, small_disk: Path, picture: Path, home: Path) -> None:
        free = _free(small_disk)
        done = run_trellis("generate", picture, "--output", small_disk / "x.glb", "--json")
        assert done.code == 2
        assert done.last["kind"] == "OutputError"
        assert (
            "No space left" in done.last["message"]
            and "The model is kept as" in done.last["message"]
        )
        assert list(small_disk.iterdir()) == [] and _free(small_disk) == free
        assert len(list((home / "results").iterdir())) == 1

    def test_results(
        self, small_disk: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The disk with journal and results fills up during the download; with space again, the job goes on."""
        monkeypatch.setenv("TRELLIS_HOME", str(small_disk))
        done = run_trellis("generate", picture, "--json")
        assert done.code == 2
        assert done.last["kind"] == "StorageError"
        assert "the disk is full. Free some space" in done.last["message"]
        assert list((small_disk / "results").iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        resumed = run_trellis("jobs", "resume", "--json")
        assert resumed.code == 0, resumed
        assert Path(resumed.last["files"][0]).exists()

    def test_no_room_at_all(
        self, small_disk: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (small_disk / "ballast").write_bytes(bytes(_free(small_disk)))
        monkeypatch.setenv("TRELLIS_HOME", str(small_disk / "home"))
        done: Ran = run_trellis("generate", picture, "--json")
        assert done.code == 2
        assert done.last["kind"] == "StorageError"
        assert "Traceback" not in done.err
