# SPDX-License-Identifier: GPL-3.0-or-later
"""A server for several users as a process: fal's own client over https, and an add-on on another host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fal_client.client
import httpx
import pytest
from fal_client import Completed, SyncClient

from harness import REPOSITORY, Ran
from sidecar.studio import ANNA, certificate, served, tokens
from sidecar.test_protocol import BODY

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="certificates are made with openssl"
)


def test_fals_own_client_completes_a_job_over_https(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, key = certificate(tmp_path, "localhost", "127.0.0.1")
    options = ["--certificate", made, "--key", key, "--token-file", tokens(tmp_path)]
    with served(tmp_path, *options) as server:
        url = server["url"].replace("127.0.0.1", "localhost")
        assert url.startswith("https://")
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{url.replace('https', 'http', 1)}/health", timeout=20, trust_env=False)

        monkeypatch.setenv("SSL_CERT_FILE", str(made))
        monkeypatch.setattr(fal_client.client, "QUEUE_URL_FORMAT", f"{url}/")
        client = SyncClient(key=ANNA)
        seen: list[Any] = []
        answer = client.subscribe("local/draft", BODY, on_queue_update=seen.append)
        assert answer["seed"] == BODY["seed"]
        assert isinstance(seen[-1], Completed)
        file = answer["model_glb"]
        assert file["url"].startswith(f"{url}/files/")
        glb = client._client.get(file["url"], headers={"Authorization": f"Key {ANNA}"}).content
        assert glb[:4] == b"glTF" and len(glb) == file["file_size"]
        client._client.close()


def test_behind_a_reverse_proxy_the_answers_name_the_proxy(tmp_path: Path) -> None:
    """As docs/studio.md has nginx pass requests on; another name than the one that was given is refused."""
    with served(tmp_path, "--token-file", tokens(tmp_path), "--name", "gpu.example") as server:
        headers = {"Authorization": f"Key {ANNA}", "X-Forwarded-Proto": "https"}
        with httpx.Client(base_url=server["url"], headers=headers, trust_env=False) as client:
            passed_on = {"Host": "gpu.example"}
            ticket = client.post("/local/draft", json=BODY, headers=passed_on).json()
            assert ticket["status_url"].startswith("https://gpu.example/local/draft/requests/")
            other = client.get("/health", headers={"Host": "other.example"})
            assert other.status_code == 421


class Hosts:
    """Two hosts on one line: `there` the server's, `here` the client's, each the words that a command begins with there."""

    address = "10.200.77.1"

    def __init__(self) -> None:
        self._names = [f"trellis-{os.getpid()}-{name}" for name in ("there", "here")]
        self.there, self.here = (["ip", "netns", "exec", name] for name in self._names)

    def open(self) -> None:
        there, here = self._names
        for name in self._names:
            _ip("netns", "add", name)
        _ip("link", "add", "there", "netns", there, "type", "veth", "peer", "here", "netns", here)
        for name, line, address in (
            (there, "there", self.address),
            (here, "here", "10.200.77.2"),
        ):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", line)
            _ip("-n", name, "link", "set", line, "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def close(self) -> None:
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        made.open()
    except (OSError, subprocess.CalledProcessError):
        made.close()
        pytest.skip("network namespaces need Linux, root and `ip`")
    yield made
    made.close()


def test_an_add_on_on_another_host_makes_a_model_with_its_token(
    hosts: Hosts, home: Path, tmp_path: Path, picture: Path
) -> None:
    made, key = certificate(tmp_path, "gpu.example", hosts.address)
    options = ["--host", hosts.address, "--port", "8443", "--token-file", tokens(tmp_path)]
    options += ["--certificate", made, "--key", key]
    url = f"https://{hosts.address}:8443"

    def trellis(*arguments: str | Path, **told: str) -> Ran:
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TRELLIS_HOME": str(home)}
        environment |= {"SSL_CERT_FILE": str(made)} | {
            f"TRELLIS_SIDECAR_{name}": value for name, value in told.items()
        }
        command = [*hosts.here, sys.executable, "-m", "blender_trellis", *map(str, arguments)]
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            env=environment,
            cwd=REPOSITORY,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    with served(tmp_path, *options, prefix=hosts.there):
        generate = ["generate", picture, "--set", "texture_size=512", "--json"]
        plain = trellis(*generate, URL=url.replace("https", "http"), TOKEN=ANNA)
        assert plain.code == 2
        assert "TRELLIS_SIDECAR_URL must begin with https://" in plain.last["message"]

        wrong = trellis(*generate, "--timeout", "60", URL=url, TOKEN="token-of-nobody-0123456789")
        assert wrong.code in (3, 4), wrong.out
        assert "invalid key credentials" in wrong.last["message"]

        done = trellis(*generate, URL=url, TOKEN=ANNA)
        assert done.code == 0, done.out
        assert Path(done.last["files"][0]).read_bytes()[:4] == b"glTF"
        for text in (plain.out, wrong.out, done.out, done.err):
            assert ANNA not in text
