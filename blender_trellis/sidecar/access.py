# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may call the server and by which names it is reached: the token file, and what a server that others reach must have."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

OWNER = ""
"""The client that has the token of the address file: whoever runs the server. It sees all jobs, and may end the server."""

_TOKEN = re.compile(r"[!-~]{20,}")
_NAME = re.compile(r"[\w.-]+")
_ANYWHERE = {
    "0.0.0.0": "127.0.0.1",
    "::": "::1",
}  # where to listen, and where this computer then is


class AccessError(Exception):
    """The server would be open to others, or to nobody; the message says what to do."""


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check(options: Namespace) -> None:
    """Refuse a server that others reach without tokens, or whose tokens anybody on the way could read.

    Raises:
        AccessError: it is one.
    """
    if bool(options.certificate) != bool(options.key):
        raise AccessError("--certificate and --key belong together: give both or none.")
    if is_loopback(options.host):
        return
    if not options.token_file:
        raise AccessError(
            f"Others reach {options.host}: give --token-file, a file with a token for each of them."
        )
    if not options.certificate and not options.allow_http:
        raise AccessError(
            f"Others reach {options.host}, and on the way anybody could read tokens and pictures. Give --certificate and --key, "
            "or listen on 127.0.0.1 behind a reverse proxy, or say with --allow-http that the network is private."
        )
    if options.host in _ANYWHERE and not options.name:
        raise AccessError(
            f"Say with --name what clients call this server: {options.host} does not."
        )


def url(options: Namespace, port: int) -> str:
    """Where this computer's own user reaches the server."""
    scheme = "https" if options.certificate else "http"
    return f"{scheme}://{_in_a_url(_ANYWHERE.get(options.host, options.host))}:{port}"


def hosts(options: Namespace, port: int) -> frozenset[str]:
    """The Host headers that requests may have: the names that were given, with the port and without, and this computer's."""
    here = [_in_a_url(_ANYWHERE.get(options.host, options.host)), "localhost", "127.0.0.1"]
    # What is the default for http or https stands in no header
    bare = [*options.name, *(here if port in (80, 443) else [])]
    return frozenset([*bare, *(f"{name}:{port}" for name in (*options.name, *here))])


def _in_a_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def read_tokens(path: Path) -> dict[str, str]:
    """The client's name by its token, from a file of lines `TOKEN` or `NAME TOKEN`; `#` begins a comment.

    A token without a name is known by its hash. Two tokens of one name are one client.

    Raises:
        AccessError: the file cannot be read, or a line is neither.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"The token file {path} cannot be read: {error}.") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, token = _client(words, f"{path}, line {number}")
        if token in found:
            raise AccessError(f"{path}, line {number}: this token stands further up already.")
        found[token] = name
    if not found:
        raise AccessError(f"The token file {path} has no token. Write one on each line.")
    return found


def _client(words: Iterable[str], where: str) -> tuple[str, str]:
    *names, token = words
    if len(names) > 1 or not all(_NAME.fullmatch(name) for name in names):
        raise AccessError(f"{where}: write a token, or a name, a space and a token.")
    if not _TOKEN.fullmatch(token):
        raise AccessError(
            f"{where}: a token has 20 characters or more, letters and digits. Make one with "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))'`."
        )
    return (names[0] if names else hashlib.sha256(token.encode()).hexdigest()[:12]), token
