# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings: what wins, what is refused, and that keys do not show."""

from __future__ import annotations

from pathlib import Path

import pytest

from blender_trellis.config import Config, check_base_url
from blender_trellis.errors import InputError
from blender_trellis.home import default_home


def test_the_environment_wins_over_preferences(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAL_KEY", " from the environment ")
    monkeypatch.setenv("TRELLIS_HOME", str(tmp_path / "environment"))
    config = Config.load(fal_key="preferred", runware_key="preferred", home=tmp_path / "preferred")
    assert config.fal_key == "from the environment"
    assert config.runware_key == "preferred"
    assert config.home == tmp_path / "environment"


def test_preferences_win_over_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRELLIS_HOME", raising=False)
    config = Config.load(home=tmp_path, fal_queue_url="https://queue.example/", runware_url="")
    assert config.home == tmp_path
    assert config.fal_queue_url == "https://queue.example"
    assert config.runware_url == "https://api.runware.ai/v1"
    assert Config.load().home == default_home()


def test_models_are_not_kept_where_blender_deletes_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TRELLIS_HOME", raising=False)
    extension = tmp_path / "extension"
    assert Config.load(home=extension).models == default_home() / "results"
    assert Config.load(home=extension, results=tmp_path / "mine").models == tmp_path / "mine"


def test_keys_do_not_show() -> None:
    config = Config(Path("x"), fal_key="secret-1", runware_key="secret-2", sidecar_token="secret-3")
    assert "secret" not in repr(config) + str(config)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:5", "https://a.example/v1"]
)
def test_base_urls_that_are_taken(url: str) -> None:
    assert check_base_url(f"{url}/", "X") == url


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example",
        "http://127.0.0.1.evil.example",
        "ftp://localhost",
        "localhost:8000",
        "https://",
        "http://[::2]",
    ],
)
def test_base_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="X "):
        check_base_url(url, "X")


def test_plain_http_to_a_server_of_ones_own_has_to_be_allowed_and_to_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "http://gpu.example:8443"
    with pytest.raises(InputError, match="TRELLIS_SIDECAR_ALLOW_HTTP=1"):
        Config.load(sidecar_url=url)
    assert Config.load(sidecar_url=url, sidecar_allow_http=True).sidecar_url == url
    with pytest.raises(InputError, match="TRELLIS_FAL_QUEUE_URL must begin with https://") as told:
        Config.load(fal_queue_url=url, sidecar_allow_http=True)
    assert "ALLOW_HTTP" not in str(told.value)
    monkeypatch.setenv("TRELLIS_SIDECAR_ALLOW_HTTP", "0")
    with pytest.raises(InputError, match="must begin with https://"):
        Config.load(sidecar_url=url, sidecar_allow_http=True)
    monkeypatch.setenv("TRELLIS_SIDECAR_ALLOW_HTTP", "1")
    assert Config.load(sidecar_url=url).sidecar_allow_http
    monkeypatch.setenv("TRELLIS_SIDECAR_ALLOW_HTTP", "perhaps")
    with pytest.raises(InputError, match="must be 1 for yes or 0 for no, not 'perhaps'"):
        Config.load()
