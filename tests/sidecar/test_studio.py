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
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need Linux, root and `ip`")
    made = Hosts()
    try:
        made.open()
    except subprocess.CalledProcessError:
        made.close()
        pytest.skip("network namespaces need root")
    yield made
    made.close()


def _here(hosts: Hosts, *arguments: str | Path, **more: str) -> Ran:
    """A Python on the client's host, to its end."""
    done = subprocess.run(
        [*hosts.here, sys.executable, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | more,
        cwd=REPOSITORY,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_client_on_another_host_makes_a_model_with_its_token(
    hosts: Hosts, home: Path, tmp_path: Path, picture: Path
) -> None:
    made, key = certificate(tmp_path, "gpu.example", hosts.address)
    options = ["--host", hosts.address, "--port", "8443", "--token-file", tokens(tmp_path)]
    options += ["--certificate", made, "--key", key]
    url = f"https://{hosts.address}:8443"

    def generate(*arguments: str, **told: str) -> Ran:
        command = ["generate", picture, "--set", "texture_size=512", "--json", *arguments]
        settings = {f"TRELLIS_SIDECAR_{name}": value for name, value in told.items()}
        return _here(hosts, "-m", "blender_trellis", *command, SSL_CERT_FILE=str(made), **settings)

    with served(tmp_path, *options, prefix=hosts.there):
        plain = generate(URL=url.replace("https", "http"), TOKEN=ANNA)
        assert plain.code == 2
        assert "TRELLIS_SIDECAR_URL must begin with https://" in plain.last["message"]

        wrong = generate("--timeout", "60", URL=url, TOKEN="token-of-nobody-0123456789")
        assert wrong.code in (3, 4), wrong.out
        assert "invalid key credentials" in wrong.last["message"]

        done = generate(URL=url, TOKEN=ANNA)
        assert done.code == 0, done.out
        assert Path(done.last["files"][0]).read_bytes()[:4] == b"glTF"
        for text in (plain.out, wrong.out, done.out, done.err):
            assert ANNA not in text


ADD_ON = """
import sys
import bpy
import blender_trellis
from blender_trellis.scene.recipe import read

url, token, picture = sys.argv[1:]
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.context.preferences.system.use_online_access = True
blender_trellis.register()
entry = bpy.context.preferences.addons.new()
entry.module = "blender_trellis"
entry.preferences.sidecar_url, entry.preferences.sidecar_token = url, token
bpy.context.scene.trellis.local_draft.resolution = "512"
try:
    bpy.ops.trellis.generate(filepath=picture)
except RuntimeError as error:
    print("refused:", error)
entry.preferences.sidecar_allow_http = True
bpy.ops.trellis.generate(filepath=picture)
print("made:", *(made.name for made in bpy.context.scene.objects if read(made)))
blender_trellis.unregister()
"""


def test_an_add_on_on_another_host_asks_in_plain_http_where_that_was_allowed(
    hosts: Hosts, home: Path, tmp_path: Path, picture: Path
) -> None:
    options = ["--host", hosts.address, "--port", "8080", "--token-file", tokens(tmp_path)]
    url = f"http://{hosts.address}:8080"
    with served(tmp_path, *options, "--allow-http", prefix=hosts.there):
        profile = str(tmp_path / "profile")
        ran = _here(hosts, "-c", ADD_ON, url, ANNA, picture, BLENDER_USER_RESOURCES=profile)
    assert ran.code == 0, ran.out + ran.err
    refused = next(line for line in ran.out.splitlines() if line.startswith("refused:"))
    assert "TRELLIS_SIDECAR_URL must begin with https://" in refused
    assert "Allow HTTP in the preferences, or TRELLIS_SIDECAR_ALLOW_HTTP=1" in refused
    assert f"made: {picture.stem}" in ran.out.splitlines()
    assert ANNA not in ran.out + ran.err
