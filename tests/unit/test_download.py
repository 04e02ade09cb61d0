# SPDX-License-Identifier: GPL-3.0-or-later
"""Models on the web: what is not fetched."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from blender_trellis.errors import ResultError
from blender_trellis.services import wire
from services.file_host import FileHost, Serve


@pytest.mark.skipif(sys.platform == "win32", reason="0.0.0.0 leads nowhere on Windows")
def test_a_redirect_to_an_address_without_encryption_is_not_followed_to_the_model(
    tmp_path: Path,
) -> None:
    """As an address that is this computer's, but none that is known to be."""
    with FileHost(b"glTF, changed on the way") as host:
        elsewhere = host.url.replace("127.0.0.1", "0.0.0.0")
        host.serves = [Serve(302, headers={"Location": f"{elsewhere}/model.glb"}), Serve()]

        async def fetch() -> None:
            async with wire.open_client(host.url) as client:
                await wire.download(
                    client, f"{host.url}/model.glb", tmp_path / "part", lambda _: None, {}
                )

        with pytest.raises(ResultError, match=r"without encryption \(0\.0\.0\.0\)"):
            asyncio.run(fetch())
        assert len(host.calls) == 1
    assert not (tmp_path / "part").exists()
