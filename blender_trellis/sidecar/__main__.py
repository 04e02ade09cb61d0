# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the sidecar: `python -m blender_trellis.sidecar --folder FOLDER`, for one user or, with a token file, for several."""

from __future__ import annotations

import argparse
import json
import logging
import logging.handlers
import math
import os
import secrets
import socket
import time
from pathlib import Path

import uvicorn

from .. import __version__, leftovers
from ..home import FileLock, atomic_write, default_home
from . import access
from .app import build
from .door import Connection
from .executors import Executor, LocalExecutor
from .server import Server
from .store import Store

LOCK_SECONDS = 5
_log = logging.getLogger(__name__)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m blender_trellis.sidecar", description=__doc__)
    parser.add_argument(
        "--folder",
        type=Path,
        default=default_home() / "sidecar",
        help="where jobs, log and address file are kept (default: in TRELLIS_HOME)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=0, help="port (default: any that is free)")
    parser.add_argument(
        "--idle-seconds",
        type=float,
        help="end when nobody has called for this long and no job is left (default: 600; never with --token-file)",
    )
    studio = parser.add_argument_group("for several users", "docs/studio.md shows a whole set-up")
    studio.add_argument(
        "--token-file",
        type=Path,
        help="a token for each client, one a line, each with a name before it or without",
    )
    studio.add_argument(
        "--name",
        action="append",
        default=[],
        help="what clients call this server in their address, with a port or without; may be given again",
    )
    studio.add_argument("--certificate", type=Path, help="PEM file, for https")
    studio.add_argument("--key", type=Path, help="the certificate's private key, a PEM file")
    studio.add_argument(
        "--allow-http",
        action="store_true",
        help="serve others without encryption, in a network that is private",
    )
    several = parser.add_argument_group(
        "on several machines", "with Ray, an extra: `pip install ray[default]`"
    )
    several.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="who carries jobs out: this computer, or all machines of a Ray cluster (default: %(default)s)",
    )
    several.add_argument(
        "--ray-address",
        default="auto",
        help="the cluster's address (default: the one that this computer belongs to)",
    )
    several.add_argument(
        "--node-home",
        type=Path,
        help="TRELLIS_HOME on the machines, with engine, weights and the cache of stages; one that they share is best "
        "(default: each machine's own)",
    )
    arguments = parser.parse_args()
    try:
        access.check(arguments)
        arguments.tokens = access.read_tokens(arguments.token_file) if arguments.token_file else {}
    except access.AccessError as error:
        parser.error(str(error))
    if arguments.idle_seconds is None:
        arguments.idle_seconds = math.inf if arguments.token_file else 600
    return arguments


def main() -> None:
    """Serve until idle or told to stop. Ends at once, with 0, where another one serves this folder."""
    arguments = _arguments()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    log = logging.handlers.RotatingFileHandler(
        folder / "log.txt", maxBytes=1 << 20, backupCount=1, encoding="utf-8"
    )
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", handlers=[log]
    )
    lock = FileLock(folder / "lock")
    if not _is_the_only_one(lock):
        return
    family = socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
    listener = socket.socket(family)
    # A port that was chosen can be had again at once; on Windows this would share it
    if os.name == "posix":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((arguments.host, arguments.port))
    address = folder / "address.json"
    try:
        _serve(listener, address, arguments)
    finally:
        address.unlink(missing_ok=True)
        if leftovers.is_uninstalled():
            lock.release()
            logging.shutdown()
            leftovers.remove(folder)


def _is_the_only_one(lock: FileLock) -> bool:
    """Take the lock; for a while, since the one that holds it may be about to end."""
    deadline = time.monotonic() + LOCK_SECONDS
    while not lock.acquire():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _serve(listener: socket.socket, address: Path, arguments: argparse.Namespace) -> None:
    port = listener.getsockname()[1]
    url = access.url(arguments, port)
    token = secrets.token_urlsafe(32)
    store = Store(address.parent / "jobs")
    executor = _executor(address.parents[1], arguments)
    holder: list[uvicorn.Server] = []

    def stop() -> None:
        holder[0].should_exit = True

    app = build(
        Server(store, executor, arguments.idle_seconds, stop),
        clients={**arguments.tokens, token: access.OWNER},
        hosts=access.hosts(arguments, port),
        stop=stop,
    )
    # httptools and uvloop would be compiled parts that the extension does not bring
    config = uvicorn.Config(
        app,
        http=Connection,
        loop="asyncio",
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
        ssl_certfile=arguments.certificate,
        ssl_keyfile=arguments.key,
    )
    holder.append(uvicorn.Server(config))
    content = {"url": url, "token": token, "pid": os.getpid(), "version": __version__}
    with atomic_write(address, 0o600) as part:
        part.write_text(json.dumps(content), encoding="utf-8")
    _log.info("serving %s, version %s, %d jobs on disk", url, __version__, len(store.jobs))
    holder[0].run(sockets=[listener])
    if not holder[0].started:
        raise SystemExit(f"The server did not start; {address.parent / 'log.txt'} says why.")


def _executor(home: Path, arguments: argparse.Namespace) -> Executor:
    if arguments.executor == "local":
        return LocalExecutor(home)
    try:
        from .ray_executor import RayExecutor
    except ImportError as error:
        raise SystemExit(f"Ray is not here ({error}): pip install 'ray[default]'.") from error
    return RayExecutor(arguments.ray_address, arguments.node_home)


if __name__ == "__main__":
    main()
