# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures on the web: fetched once, with limits, and only where that is allowed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from blender_trellis.errors import ImageError
from blender_trellis.generation import fetch, images
from services.file_host import FileHost, Serve


@pytest.fixture
def host() -> Iterator[FileHost]:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (1, 2, 3)).save(out, "PNG")
    with FileHost(out.getvalue()) as running:
        yield running


def test_a_picture_is_fetched_once_and_called_after_its_address(
    host: FileHost, tmp_path: Path
) -> None:
    url = f"{host.url}/a%20b/robot%20one.png?size=1"
    found = fetch.fetch(url, tmp_path / "kept", online=False)
    assert found.name == "robot one.png" and found.read_bytes() == host.file
    assert fetch.fetch(url, tmp_path / "kept", online=False) == found
    assert len(host.calls) == 1


@pytest.mark.parametrize("path", ["/..%2F..%2Fetc", "/", "/.hidden", "/con%00.png"])
def test_no_address_leads_out_of_the_folder(host: FileHost, tmp_path: Path, path: str) -> None:
    found = fetch.fetch(host.url + path, tmp_path / "kept", online=False)
    assert found.resolve().parent.parent == (tmp_path / "kept").resolve()


@pytest.mark.parametrize("url", ["http://[", "https://a:99999999/b.png", "http:///b.png"])
def test_what_is_no_address_is_told_in_words(tmp_path: Path, url: str) -> None:
    assert images.reference(url) == "url"
    with pytest.raises(ImageError, match="could not be fetched from"):
        fetch.fetch(url, tmp_path / "kept", online=True)


def test_nothing_goes_out_without_online_access(host: FileHost, tmp_path: Path) -> None:
    """Also not by a redirect from this computer."""
    host.serves = [Serve(302, headers={"Location": "https://example.invalid/robot.png"})]
    for url in ("https://example.invalid/robot.png", f"{host.url}/out"):
        with pytest.raises(ImageError, match="allow Online Access"):
            fetch.fetch(url, tmp_path / "kept", online=False)


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (Serve(404), "does not give the picture out .HTTP 404"),
        (Serve(body=b"<html>Log in first</html>" * 20), "is not a picture that can be read"),
        (Serve(body=b""), "is empty"),
        (Serve(until=40), "could not be fetched from"),
    ],
)
def test_what_is_no_whole_picture_is_not_kept(
    host: FileHost, tmp_path: Path, serve: Serve, words: str
) -> None:
    host.serves = [serve]
    with pytest.raises(ImageError, match=words):
        fetch.fetch(f"{host.url}/x.png", tmp_path / "kept", online=False)
    assert not [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]


def test_what_is_too_large_is_not_fetched_to_its_end(
    host: FileHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 2**20)
    host.serves = [Serve(body=bytes(8 * 2**20), framing="chunks")]
    with pytest.raises(ImageError, match=r"x\.png has 1 MiB; at most 1 MiB can be read"):
        fetch.fetch(f"{host.url}/x.png", tmp_path / "kept", online=False)


def test_a_host_that_is_not_there_is_named(tmp_path: Path) -> None:
    with FileHost(b"") as gone:
        url = gone.url
    with pytest.raises(ImageError, match=r"could not be fetched from 127\.0\.0\.1"):
        fetch.fetch(f"{url}/x.png", tmp_path / "kept", online=False)
