# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub that has the weights, or a mirror that speaks as it does: who may have a file, what it is, and the file itself.

A download goes on where the last one stopped, also after a kill, and only what has the hash that the hub names gets its place.
Hugging Face's own client begins anew after a kill (huggingface_hub 2.4: a temporary name for each try), which at 2.4 GiB a
file is too dear. Run as a script with a job as JSON, it downloads and prints a line of JSON for everything that happens. So it
imports nothing of the package, and nothing that is not Python's own.

Headers: https://huggingface.co/docs/huggingface_hub/package_reference/file_download (X-Linked-Etag is the SHA-256 of a large
file; the ETag of a small one is git's hash of it), https://huggingface.co/docs/hub/models-gated (401 and 403).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import http.client
import json
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENDPOINT = "https://huggingface.co"
SECONDS = 30  # without a byte until a connection counts as broken
TRIES = 6  # one after another without a byte
_REDIRECTS = 10
_PIECE = 1 << 20
_TELL_SECONDS = 0.5


class HubError(Exception):
    """`kind`: "gated" and "refused" (no token; or one that may not), "missing", "unreachable", "hash", "disk"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Remote:
    """A file at the hub. `digest` is "sha256:…", "git:…" or "" where the hub names none; `size` None where it does not say."""

    size: int | None
    digest: str
    revision: str


def endpoint() -> str:
    """The hub's address, or the mirror that the user has set for everything that speaks with it."""
    return (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")


def token() -> str:
    """The user's token, from where the hub's own tools look for it; "" without one."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name):
            return os.environ[name].strip()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = os.environ.get("HF_HOME") or Path(cache, "huggingface")
    try:
        path = Path(os.environ.get("HF_TOKEN_PATH") or Path(home, "token"))
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def url(base: str, repository: str, revision: str, path: str) -> str:
    """Where a file of a repository is."""
    return f"{base}/{repository}/resolve/{urllib.parse.quote(revision, safe='')}/{urllib.parse.quote(path)}"


def look(where: str, revision: str, key: str = "") -> Remote:
    """What the hub says of the file at `where`, without a byte of it. `key`: the user's token, which is for the hub alone.

    Raises:
        HubError: it may not be had, is not there, or the hub does not answer.
    """
    # The answer that leads to where large files are kept has all that is to be known, so that redirect is not followed
    with _open("HEAD", where, key, {}, follow=_same_origin) as answer:
        headers = answer.headers
        size = headers.get("X-Linked-Size") or headers.get("Content-Length")
        return Remote(
            int(size) if size and size.isdigit() else None,
            _digest(headers.get("X-Linked-Etag") or headers.get("ETag") or ""),
            headers.get("X-Repo-Commit") or revision,
        )


def _digest(etag: str) -> str:
    value = etag.removeprefix("W/").strip('"')
    lengths = {64: "sha256", 40: "git"}
    known = re.fullmatch(r"[0-9a-f]+", value) and lengths.get(len(value))
    return f"{known}:{value}" if known else ""


# -- A download ------------------------------------------------------------------------------------


def download(
    where: str, remote: Remote, to: Path, tell: Callable[[int], None], key: str = ""
) -> None:
    """Have the file at `to`, with its record beside it. What came is kept in a `.part` until it is whole. `key` as in `look`.

    Raises:
        HubError: see there. After "hash" the next try begins anew, after all others it goes on.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(f"{remote.digest or where}".encode()).hexdigest()[:12]
    part = to.with_name(f"{to.name}.{name}.part")
    for other in to.parent.glob(f"{_literal(to.name)}.*.part"):
        if other != part:  # of another revision
            other.unlink()
    part.touch()
    tries = 0
    while remote.size is None or part.stat().st_size != remote.size:
        before = part.stat().st_size
        try:
            _go_on(where, remote, part, tell, key)
            if remote.size is None:
                break
            problem = f"{where} ended early"
        except HubError as error:
            if error.kind != "unreachable":
                raise
            problem = str(error)
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise HubError("disk", f"The disk is full: {error}.") from error
            problem = f"{type(error).__name__}: {error}"
        tries = 1 if part.stat().st_size > before else tries + 1
        if part.stat().st_size != remote.size:
            if tries >= TRIES:
                raise HubError("unreachable", f"The download breaks again and again ({problem}).")
            time.sleep(min(2.0**tries, 30) / 4)
    found = _check(part, remote, tell)
    write_record(to, part.stat().st_size, found, remote.revision)
    part.replace(to)


def record_of(file: Path) -> Path:
    """Where it stands what a file was when it was verified."""
    return file.with_name(f"{file.name}.verified")


def write_record(file: Path, size: int, sha256: str, revision: str) -> None:
    """Note what a file is, before it gets its place: a record without a file says nothing, a file without one is doubtful."""
    fresh = file.with_name(f"{file.name}.verified.new")
    content = {"size": size, "sha256": sha256, "revision": revision}
    fresh.write_text(json.dumps(content), encoding="utf-8")
    fresh.replace(record_of(file))


def _go_on(where: str, remote: Remote, part: Path, tell: Callable[[int], None], key: str) -> None:
    """Fetch what is missing, as far as the line holds."""
    have = part.stat().st_size
    if remote.size is None or have > remote.size:
        have = 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with _open("GET", where, key, headers, follow=lambda *_: True) as answer:
        begins = re.match(rf"bytes {have}-", answer.headers.get("Content-Range") or "")
        goes_on = have and answer.status == 206 and begins
        with part.open("ab" if goes_on else "wb", buffering=0) as written:
            while piece := answer.read1(_PIECE):  # what there is: a slow line is to be seen to move
                written.write(piece)
                tell(written.tell())


def _check(part: Path, remote: Remote, tell: Callable[[int], None]) -> str:
    """The SHA-256 of what came.

    Raises:
        HubError: it is another file than the hub said; it has been deleted.
    """
    size = part.stat().st_size
    sha, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with part.open("rb") as stream:
        while piece := stream.read(_PIECE):
            sha.update(piece)
            if remote.digest.startswith("git:"):
                git.update(piece)
            tell(size)
    found = {"": "", "git": git.hexdigest(), "sha256": sha.hexdigest()}
    kind, _, wanted = remote.digest.partition(":")
    if found[kind] != wanted:
        part.unlink()
        raise HubError("hash", "What came has another hash than the hub names for it.")
    return sha.hexdigest()


def _literal(name: str) -> str:
    """A file's name as a pattern that means it alone."""
    return re.sub(r"([*?[])", r"[\1]", name)


# -- On the wire -----------------------------------------------------------------------------------


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are followed here: the token goes to the hub's own origin alone."""

    def redirect_request(self, *_: Any) -> None:
        return None


@functools.cache
def certificates() -> ssl.SSLContext:
    """What to trust: the system's certificates, and Mozilla's where they are, since Blender's Python on macOS has none."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _same_origin(source: str, target: str) -> bool:
    return urllib.parse.urlsplit(source)[:2] == urllib.parse.urlsplit(target)[:2]


@contextlib.contextmanager
def _open(
    method: str, where: str, key: str, headers: dict[str, str], follow: Callable[[str, str], bool]
) -> Iterator[Any]:
    """An answer; a redirect that `follow(source, target)` does not want is one too."""
    opener = urllib.request.build_opener(
        _NoRedirect, urllib.request.HTTPSHandler(context=certificates())
    )
    common = {"User-Agent": "blender_trellis", "Accept-Encoding": "identity", **headers}
    at = where
    for _ in range(_REDIRECTS):
        own = {"Authorization": f"Bearer {key}"} if key and _same_origin(where, at) else {}
        request = urllib.request.Request(at, headers=common | own, method=method)
        try:
            answer = opener.open(request, timeout=SECONDS)
        except urllib.error.HTTPError as error:
            answer = error
        except (OSError, http.client.HTTPException) as error:
            if method == "GET":
                raise
            host = urllib.parse.urlsplit(at).netloc
            raise HubError(
                "unreachable", f"{host} does not answer ({getattr(error, 'reason', error)})."
            ) from error
        with answer:
            target = urllib.parse.urljoin(at, answer.headers.get("Location") or "")
            redirects = answer.status in (301, 302, 303, 307, 308)
            if redirects and follow(at, target):
                at = target
                continue
            if answer.status >= 400:
                raise _refusal(answer, at, key)
            yield answer
            return
    raise HubError("unreachable", f"{where} leads from one address to another without end.")


def _refusal(answer: Any, where: str, key: str) -> HubError:
    host = urllib.parse.urlsplit(where).netloc
    code = answer.headers.get("X-Error-Code") or ""
    said = answer.headers.get("X-Error-Message") or ""
    if code == "GatedRepo" or answer.status in (401, 403):
        kind = "refused" if key else "gated"
        return HubError(kind, f"{host} answers {answer.status}. {said}".strip())
    if answer.status in (404, 410):
        return HubError("missing", f"{host} does not have {urllib.parse.urlsplit(where).path}.")
    return HubError("unreachable", f"{host} answers {answer.status}. {said}".strip())


# -- As a process ----------------------------------------------------------------------------------


def _main(job: dict[str, Any]) -> int:
    """Download the job's files one after another; of a file that is not needed a failure is told, and no more."""

    def say(**line: Any) -> None:
        print(json.dumps(line), flush=True)  # noqa: T201  weights.py reads it

    for file in job["files"]:
        told = 0.0

        def tell(done: int, file: dict[str, Any] = file) -> None:
            nonlocal told
            if time.monotonic() - told >= _TELL_SECONDS:
                told = time.monotonic()
                say(event="bytes", file=file["target"], done=done)

        remote = Remote(file["size"], file["digest"], file["revision"])
        to = Path(job["folder"], file["target"])
        try:
            download(file["where"], remote, to, tell, token() if file["at_hub"] else "")
        except (HubError, OSError) as error:
            found = error if isinstance(error, HubError) else HubError("disk", f"{error}.")
            say(event="error", kind=found.kind, message=str(found), file=file["target"])
            if file["needed"]:
                return 1
        else:
            say(event="whole", file=file["target"], done=to.stat().st_size)
    return 0


if __name__ == "__main__":
    sys.exit(_main(json.loads(sys.argv[1])))
