# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: `blender --command trellis …` and `python -m blender_trellis …`.

Exit codes: 0 done, 2 bad input or usage, 3 refused or failed by the service, 4 unreachable, temporary or uncertain,
130 cancelled.
With `--json`, every line on standard output is one JSON object; the last one says how it ended.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, cli_install
from .errors import (
    CancelledError,
    InputError,
    OutputError,
    ParameterError,
    TrellisError,
)
from .generation.job import ENDED, Event, Job, State

if TYPE_CHECKING:
    from .generation.runner import Runner

_BAR = 30
_JOB_ACTIONS = ("list", "show", "resume", "cancel", "forget", "send-again", "adopt")
_JOBS_HELP = """\
actions:
  list                all jobs, the newest first
  show ID             everything about one
  resume [ID]         go on with what is unfinished, or with that one; uncertain ones are asked for
  cancel ID           call it off; at Runware, stop waiting for it
  forget ID           take it out of the list; its files stay
  send-again ID       send an uncertain job anew, though it may be charged twice
  adopt ID REQUEST    go on with an uncertain job that the service's pages call REQUEST
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    show = _Json() if arguments.json else _Text()
    try:
        code = arguments.run(arguments, show)
    except TrellisError as error:
        show.error(error)
        code = error.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("blender_trellis"):
            raise
        show.error(
            InputError(
                f"The Python package {error.name} is missing here. In a checkout, run `python build.py demo` once, then use the "
                "Python in .venv; elsewhere install it with pip."
            )
        )
        code = InputError.exit_code
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        sys.stderr.close()
        code = 0
    return int(code or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trellis",
        description="Turn images into textured 3D models.",
        epilog="Exit codes: 0 done, 2 bad input, "
        "3 refused or failed by the service, 4 unreachable or uncertain, 130 cancelled.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json", action="store_true", help="one JSON object a line instead of text"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[..., Any], text: str, more: str = ""
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=text,
            description=text,
            parents=[common],
            epilog=more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        return made

    generate = command("generate", _generate, "make a model of one or several images")
    generate.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a file; or, where the service takes it, a URL"
    )
    generate.add_argument(
        "--endpoint", default="local/draft", metavar="ID", help="default: %(default)s"
    )
    generate.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="a parameter, by its documented name",
    )
    generate.add_argument(
        "--mesh", type=Path, metavar="FILE", help="the .glb that an endpoint works on"
    )
    generate.add_argument("--output", type=Path, metavar="FILE", help="a .glb or .blend to write")
    generate.add_argument(
        "--max-cost", type=float, metavar="USD", help="refuse what would cost more than this"
    )
    generate.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="stop waiting after this long; the job goes on",
    )
    price = command("price", _price, "what a model would cost, as far as is known beforehand")
    price.add_argument("endpoint", metavar="ID")
    price.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings")
    price.add_argument("--image", metavar="IMAGE", help="ask the service too, with this picture")
    command("spent", _spent, "what the services charged, by month")
    endpoints = command("endpoints", _endpoints, "what can be asked for, as a table or JSON Schema")
    endpoints.add_argument("endpoint", nargs="?", metavar="ID")
    jobs = command("jobs", _jobs, "what was asked for, and what to do with it", _JOBS_HELP)
    jobs.add_argument("action", nargs="?", default="list", choices=_JOB_ACTIONS, metavar="ACTION")
    jobs.add_argument("job", nargs="?", metavar="ID")
    jobs.add_argument("request", nargs="?", metavar="REQUEST")
    sidecar = command(
        "sidecar", _sidecar, "start, stop or install the local process, or say how it is"
    )
    actions = ("start", "status", "stop", *cli_install.ACTIONS)
    sidecar.add_argument("action", nargs="?", default="status", choices=actions)
    cli_install.add_options(sidecar)
    command("doctor", _doctor, "what is installed and configured")
    return parser


class _Json:
    """One JSON object a line."""

    def line(self, value: dict[str, Any]) -> None:
        print(json.dumps(value, ensure_ascii=False), flush=True)

    def event(self, event: Event) -> None:
        names = ("state", "stage", "step", "steps", "fraction", "message")
        self.line({"event": "progress", **{name: getattr(event, name) for name in names}})

    def result(self, job: Job, files: list[Path]) -> None:
        self.line(
            {
                "event": "result",
                "state": job.state,
                "job_id": job.id,
                "endpoint": job.endpoint,
                "files": [str(path) for path in files],
                "seed": job.seed,
                "cost": job.cost,
                "request_id": job.request_id,
            }
        )

    def error(self, error: TrellisError) -> None:
        self.line(
            {
                "event": "error",
                "state": error.state,
                "kind": error.kind,
                "message": error.message,
                "job_id": error.job_id,
                "request_id": error.request_id,
            }
        )

    def data(self, value: Any, text: Callable[[], str]) -> None:
        for item in [value] if isinstance(value, dict) else value:
            self.line(item)


class _Text:
    """Words, and a progress bar on a terminal."""

    _open_line = False
    _fraction = 0.0
    _last = ""

    def event(self, event: Event) -> None:
        if (event.fraction is None and not event.message) or event.error:
            return
        self._fraction = event.fraction or self._fraction
        done = round(_BAR * self._fraction)
        what = event.message or event.stage or str(event.state)
        text = f"{'█' * done}{'░' * (_BAR - done)} {100 * self._fraction:3.0f} %  {what}"
        if sys.stderr.isatty():
            left = f", {event.left}" if event.left else ""
            print(f"\r\x1b[K{text}{left}", end="", file=sys.stderr, flush=True)
            self._open_line = True
        elif text != self._last:
            print(text, file=sys.stderr, flush=True)
            self._last = text

    def _close_line(self) -> None:
        if self._open_line:
            print(file=sys.stderr)
            self._open_line = False

    def result(self, job: Job, files: list[Path]) -> None:
        self._close_line()
        for path in files:
            print(path)
        if job.error:
            print(f"Note: {job.error['message']}", file=sys.stderr)
        if job.cost:
            print(f"Cost: {_money(job.cost)}", file=sys.stderr)

    def error(self, error: TrellisError) -> None:
        self._close_line()
        print(f"Error: {error}", file=sys.stderr)

    def data(self, value: Any, text: Callable[[], str]) -> None:
        print(text())


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ParameterError(f"--set takes NAME=VALUE, not {text!r}.", parameter=name)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _generate(arguments: argparse.Namespace, show: _Json | _Text) -> None:
    from . import api
    from .generation.library import check_output
    from .generation.runner import Request, Runner

    wish = {}
    if arguments.output is not None:
        check_output(arguments.output)
        wish["output"] = str(arguments.output.absolute())
    request = Request(
        arguments.endpoint,
        arguments.images,
        dict(map(_setting, arguments.settings)),
        wish,
        arguments.mesh,
        arguments.max_cost,
    )
    runner = Runner(api.config())
    try:
        _finish(runner, runner.submit(request), show, arguments.timeout)
    finally:
        runner.close()


def _finish(runner: Runner, job_id: str, show: _Json | _Text, timeout: float | None = None) -> None:
    """Wait for a job, and do with its result what was wished."""
    try:
        job = runner.wait(job_id, show.event, timeout)
    except KeyboardInterrupt:
        runner.cancel(job_id)
        job = runner.wait(job_id, show.event)
    show.result(job, _deliver(runner, job))


def _deliver(runner: Runner, job: Job) -> list[Path]:
    """Write the wished output of a ready job, if there is one; returns the files to name."""
    from . import api

    output = job.wish.get("output")
    if not output:
        return [Path(path) for path in job.files]
    try:
        return api.write_all(api.result_of(job), Path(output))
    except OutputError as error:
        kept = ", ".join(job.files)
        raise OutputError(f"{error.message} The model is kept as {kept}.") from error
    finally:  # it has been tried: asking for it again with every `jobs resume` would help nobody
        runner.journal.note(job.id, fulfilled=True)


def _money(cost: dict[str, Any]) -> str:
    return f"{'about ' if cost['estimate'] else ''}{_amount(cost['amount'])} {cost['currency']}"


def _amount(amount: float) -> str:
    """Two decimals, or four where a service counts in fractions of a cent."""
    return f"{amount:.2f}" if round(amount, 2) == round(amount, 4) else f"{amount:.4f}"


def _price(arguments: argparse.Namespace, show: _Json | _Text) -> None:
    from . import api

    found = api.price(
        arguments.endpoint, dict(map(_setting, arguments.settings)), image=arguments.image
    )
    show.data(found, lambda: _price_words(found))


def _price_words(found: dict[str, Any]) -> str:
    if found["amount"] is None:
        return "Nothing is charged."
    low, high = _amount(found["low"]), _amount(found["high"])
    span = "" if low == high else f", {low} to {high}"
    source = f"{found['source']}, {found['date']}"
    return f"About {_amount(found['amount'])} {found['currency']}{span} (an estimate; {source})"


def _spent(arguments: argparse.Namespace, show: _Json | _Text) -> None:
    from . import api
    from .generation.journal import Journal

    journal = Journal(api.config().home)
    try:
        months = [dataclasses.asdict(spent) for spent in journal.spent()]
    finally:
        journal.close()

    def words() -> str:
        lines = [
            f"{row['month']}  {row['service']:<8} {row['jobs']:>5} jobs  {_money(row)}"
            for row in months
        ]
        return "\n".join(lines) or "Nothing was charged."

    show.data(months, words)


def _endpoints(arguments: argparse.Namespace, show: _Json | _Text) -> None:
    from .endpoints import get
    from .endpoints.schema import schemas

    if arguments.endpoint:
        get(arguments.endpoint)
    chosen = {
        name: schema for name, schema in schemas().items() if arguments.endpoint in (None, name)
    }
    show.data(chosen, lambda: "\n\n".join(_table(name, schema) for name, schema in chosen.items()))


def _table(name: str, schema: dict[str, Any]) -> str:
    from .endpoints.schema import describe_range

    rows = [
        (wire, describe_range(prop), "" if prop.get("default") is None else str(prop["default"]))
        for wire, prop in schema["properties"].items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([f"{name}  ({schema['title']})", *(f"  {line}" for line in lines)])


def _jobs(arguments: argparse.Namespace, show: _Json | _Text) -> int:
    from . import api
    from .generation.runner import Runner

    if arguments.action not in ("list", "resume") and not arguments.job:
        raise InputError(f"`jobs {arguments.action}` needs a job's id. `jobs list` shows them all.")
    if arguments.action == "adopt" and not arguments.request:
        raise InputError("`jobs adopt` needs the service's id of the request after the job's id.")
    runner = Runner(api.config())
    try:
        match arguments.action:
            case "list":
                listed = runner.journal.jobs()
                show.data(
                    [_row(job) for job in listed],
                    lambda: "\n".join(map(_words, listed)) or "No jobs.",
                )
            case "show":
                job = runner.journal.get(arguments.job)
                show.data(_row(job), lambda: json.dumps(_row(job), indent=2, ensure_ascii=False))
            case "forget":
                runner.journal.forget(arguments.job)
                show.data({"forgotten": arguments.job}, lambda: "Forgotten. Its files stay.")
            case "cancel":
                _cancel(runner, arguments.job, show)
            case "resume":
                return _resume(runner, show, arguments.job)
            case "send-again":
                runner.send_again(arguments.job)
                _finish(runner, arguments.job, show)
            case "adopt":
                runner.adopt(arguments.job, arguments.request)
                _finish(runner, arguments.job, show)
    finally:
        runner.close()
    return 0


def _row(job: Job) -> dict[str, Any]:
    return dataclasses.asdict(job)


def _words(job: Job) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created))
    error = f"  {job.error['message']}" if job.error else ""
    return f"{job.id}  {when}  {job.state:<11}  {job.endpoint}  {job.title}{error}"


def _resume(runner: Runner, show: _Json | _Text, job_id: str | None) -> int:
    """Go on with what other processes left behind, in the order it was asked for, or with one job of it."""
    code = 0
    left = runner.resume(job_id)
    if not left:
        show.data([], lambda: "Nothing is left to resume.")
    for job in left:
        try:
            if job.state == "ready":
                if "output" in job.wish:
                    show.result(job, _deliver(runner, job))
            else:
                _finish(runner, job.id, show)
        except TrellisError as error:
            error.job_id = job.id
            show.error(error)
            code = error.exit_code
    return code


def _cancel(runner: Runner, job_id: str, show: _Json | _Text) -> None:
    """End a job, whoever works on it."""
    job = runner.journal.get(job_id)
    if job.state in ENDED:
        raise InputError(f"Job {job_id} is {job.state} already.")
    runner.journal.note(job_id, cancel_asked=True)
    if job.state == "uncertain" and runner.journal.claim(job_id):
        runner.journal.move(job_id, State.CANCELLED)
        return
    if runner.resume(job_id):
        with contextlib.suppress(CancelledError):
            runner.wait(job_id, show.event)


def _sidecar(arguments: argparse.Namespace, show: _Json | _Text) -> int:
    from . import api
    from .services import sidecar

    if arguments.action in cli_install.ACTIONS:
        return cli_install.run(arguments, show)
    home = api.config().shared
    if arguments.action == "stop":
        stopped = sidecar.stop(home)
        show.data({"stopped": stopped}, lambda: "Stopped." if stopped else "It was not running.")
        return 0
    if arguments.action == "start":
        sidecar.ensure(home)
    address = sidecar.read_address(home)
    state = sidecar.health(address)
    value: dict[str, Any] = {"running": state is not None, "url": None}
    if address and state:
        value |= {
            "url": address[0],
            "version": state["version"],
            "waiting": state["queued"],
            "at_work": state["running"],
        }
    show.data(value, lambda: _state_words(value))
    return 0


def _state_words(state: dict[str, Any]) -> str:
    if not state["running"]:
        return "Not running."
    return f"Running at {state['url']}, {state['waiting']} waiting, {state['at_work']} at work."


def _doctor(arguments: argparse.Namespace, show: _Json | _Text) -> None:
    from . import api
    from .doctor import examine

    found = examine(api.config())
    show.data(found, lambda: "\n".join(f"{name:<22} {value}" for name, value in found.items()))
