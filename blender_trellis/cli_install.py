# SPDX-License-Identifier: GPL-3.0-or-later
"""`trellis sidecar install` and `uninstall`: the local engine TRELLIS.2 from the command line."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from .cli_show import Show, confirm
from .errors import CancelledError, InputError
from .generation.job import Event, State
from .install import Report, builds, installer, weights

ACTIONS = ("install", "uninstall")
_TELL_SECONDS = 0.5  # pip says several times a second how far it is


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the two actions."""
    options = parser.add_argument_group("options of install")
    options.add_argument(
        "--python",
        type=Path,
        metavar="FILE",
        help="make the environment with this Python, 3.11 to 3.13",
    )
    options.add_argument(
        "--device",
        choices=builds.DEVICES,
        help="the build of PyTorch, in place of the one that suits the hardware",
    )
    options.add_argument(
        "--resolution",
        choices=weights.RESOLUTIONS,
        default="512",
        help="the weights for 512 alone, or for all resolutions (default: %(default)s)",
    )
    options.add_argument("--retexture", action="store_true", help="the weights for retexturing too")
    options.add_argument(
        "--without-gate",
        action="store_true",
        help="have DINOv3 from a copy that asks for no registration; Meta's licence binds all the same",
    )
    options.add_argument(
        "--yes", action="store_true", help="install without asking, for scripts and with --json"
    )
    source = options.add_mutually_exclusive_group()
    source.add_argument(
        "--mirror", metavar="URL", default="", help="a mirror of the hub that has the weights"
    )
    source.add_argument(
        "--from",
        type=Path,
        metavar="FOLDER",
        dest="source",
        help="take the weights from a folder, as links if possible",
    )
    both = parser.add_argument_group("options of install and uninstall")
    both.add_argument(
        "--only",
        choices=(installer.ENVIRONMENT, installer.WEIGHTS),
        default="",
        help="one of the two parts",
    )


def run(arguments: argparse.Namespace, show: Show) -> int:
    """Carry out one of the actions."""
    from . import api

    if arguments.action == "uninstall":
        there = api.uninstall_local(arguments.only)
        value = {"event": "result", "uninstalled": (arguments.only or "all") if there else None}
        show.data(value, lambda: _uninstalled(there))
        return 0

    def begin(plan: installer.Plan) -> None:
        _show(plan, show)
        if not plan.empty and not plan.problem and not arguments.yes:
            unasked = "Nothing was downloaded, since nobody can be asked here whether that is wanted. Say --yes to install it."
            confirm(arguments, unasked, "Nothing was downloaded.")

    try:
        made = api.install_local(_wish(arguments), on_report=_Teller(show), on_plan=begin)
    except KeyboardInterrupt as error:
        raise CancelledError(
            "The installation was cancelled. Install again to go on from here."
        ) from error
    found = installer.status(api.config().shared)
    result = {
        "event": "result",
        "state": State.READY,
        "environment": found.check,
        "present": [file.target for file in found.there],
        "missing": [file.target for file in found.lacking],
        "notes": list(made.lost),
    }
    show.data(result, lambda: "\n".join([*_lines(found), *made.lost]))
    return 0


def _uninstalled(there: bool) -> str:
    own = os.environ.get("TRELLIS_WEIGHTS")
    stay = f" The weights in {own} stay." if own else ""
    return f"{'Uninstalled.' if there else 'Nothing was installed.'}{stay}"


def _wish(arguments: argparse.Namespace) -> installer.Wish:
    from . import api
    from .config import check_base_url

    source = arguments.source
    if source is not None and not source.is_dir():
        raise InputError(
            f"There is no folder {source}. --from takes the one that holds the weights."
        )
    return installer.Wish(
        python=arguments.python,
        device=arguments.device,
        resolution=arguments.resolution,
        retexture=arguments.retexture,
        without_gate=arguments.without_gate,
        mirror=check_base_url(arguments.mirror, "--mirror") if arguments.mirror else "",
        source=source.absolute() if source else None,
        only=arguments.only,
        offline=api.config().offline,
    )


class _Teller:
    """Passes on what is new, and not too often."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._step = ""
        self._told = 0.0

    def __call__(self, report: Report) -> None:
        now = time.monotonic()
        if report.step == self._step and now - self._told < _TELL_SECONDS:
            return
        self._step, self._told = report.step, now
        message = f"{report.title}: {report.message}" if report.message else report.title
        event = Event(
            "",
            State.DOWNLOADING if report.step == installer.WEIGHTS else State.PREPARED,
            report.step,
            report.number,
            report.count,
            report.fraction,
            message,
        )
        self._show.event(event)


def _show(plan: installer.Plan, show: Show) -> None:
    value = {
        "event": "plan",
        "torch": plan.build.requirement if plan.steps else None,
        "device": plan.build.device,
        "bytes": sum(file.bytes for file in plan.files),
        "licences": plan.licences,
        "free": {str(folder): free for folder, free in plan.free.items()},
        "files": [
            {
                "repository": file.repository,
                "revision": file.revision,
                "path": file.path,
                "size": file.size,
            }
            for file in plan.files
        ],
    }
    show.data(value, lambda: "\n".join(plan.words()))


def _lines(found: installer.Status) -> list[str]:
    return [f"Environment: {found.environment_words()}", f"Weights: {found.weights_words()}"]
