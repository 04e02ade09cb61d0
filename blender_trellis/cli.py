# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: `blender --command trellis …` and `python -m blender_trellis …`.

Exit codes: 0 done, 2 bad input or usage, 3 refused or failed by the service, 4 unreachable, temporary or uncertain,
5 a batch of which some rows have no model, 130 cancelled.
With `--json`, every line on standard output is one JSON object; the last one says how it ended.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import logging
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import __version__, cli_batch, cli_install, cli_jobs
from .cli_show import Json, LogHandler, Show, Text, amount, money
from .errors import (
    CancelledError,
    InputError,
    ParameterError,
    TrellisError,
    UnreachableError,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _let_through()
    arguments = _parser().parse_args(argv)
    show: Show = Json() if arguments.json else Text()
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(message)s", handlers=[LogHandler(show)]
    )
    try:
        code = arguments.run(arguments, show)
        sys.stdout.flush()
    except TrellisError as error:
        show.error(error)
        code = error.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__name__.rpartition(".")[0]):
            raise
        show.error(
            InputError(
                f"The Python package {error.name} is missing here. In a checkout, run `python build.py demo` once, then use the "
                "Python in .venv; elsewhere install it with pip."
            )
        )
        code = InputError.exit_code
    except KeyboardInterrupt:  # before there was a job, or after it
        show.error(CancelledError("Interrupted."))
        code = CancelledError.exit_code
    except BrokenPipeError:
        _close_output()
        # `head` has seen enough of a list; whoever asked for a model does not know what became of it
        code = 0 if _only_shows(arguments) else UnreachableError.exit_code
    return int(code or 0)


def _let_through() -> None:
    """A letter that the console or pipe cannot take (Windows: a name in another script) is written as its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _close_output() -> None:
    """Nobody reads it any more; else what is left in it would be tried again, and fail again, when Python ends."""
    with contextlib.suppress(OSError):
        sys.stdout.close()


def _only_shows(arguments: argparse.Namespace) -> bool:
    if arguments.run is cli_jobs.run:
        return arguments.action in ("list", "show")
    return arguments.run in (_price, _spent, _endpoints, _doctor)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trellis",
        description="Turn images into textured 3D models.",
        epilog="Exit codes: 0 done, 2 bad input, "
        "3 refused or failed by the service, 4 unreachable or uncertain, 5 a batch without all its models, 130 cancelled.",
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

    generate = command(
        "generate", _generate, "make a model of one or several images, or many models"
    )
    _add_generate_options(generate)
    price = command("price", _price, "what a model would cost, as far as is known beforehand")
    price.add_argument("endpoint", metavar="ID")
    price.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings")
    price.add_argument("--image", metavar="IMAGE", help="ask the service too, with this picture")
    command("spent", _spent, "what the services charged, by month")
    endpoints = command("endpoints", _endpoints, "what can be asked for, as a table or JSON Schema")
    endpoints.add_argument("endpoint", nargs="?", metavar="ID")
    jobs = command(
        "jobs", cli_jobs.run, "what was asked for, and what to do with it", cli_jobs.HELP
    )
    cli_jobs.add_options(jobs)
    _add_timeout(jobs)
    sidecar = command(
        "sidecar", _sidecar, "start, stop or install the local process, or say how it is"
    )
    actions = ("start", "status", "stop", *cli_install.ACTIONS)
    sidecar.add_argument("action", nargs="?", default="status", choices=actions)
    cli_install.add_options(sidecar)
    command("doctor", _doctor, "what is installed and configured")
    return parser


def _add_generate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="a file; or, where the service takes it, a URL. For a model each: a folder, a quoted pattern as '*.png', or a "
        "manifest that ends in .csv or .jsonl",
    )
    parser.add_argument(
        "--endpoint", default="local/draft", metavar="ID", help="default: %(default)s"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="a parameter, by its documented name",
    )
    parser.add_argument(
        "--mesh", type=Path, metavar="FILE", help="the .glb that an endpoint works on"
    )
    parser.add_argument(
        "--cut-out",
        action="store_true",
        help="take a plain background away here, instead of leaving it to whoever makes the model",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="a .glb or .blend to write; of a batch the folder",
    )
    parser.add_argument(
        "--max-cost",
        type=_not_negative,
        metavar="USD",
        help="refuse what would cost more than this",
    )
    _add_timeout(parser)
    cli_batch.add_options(parser)


def _add_timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=_not_negative,
        metavar="SECONDS",
        help="stop waiting after this long; the job goes on",
    )


def _not_negative(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")


def _setting(text: str) -> tuple[str, Any]:
    from .generation.rows import parameter_value

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ParameterError(f"--set takes NAME=VALUE, not {text!r}.", parameter=name)
    return name, parameter_value(value)


def _generate(arguments: argparse.Namespace, show: Show) -> int:
    from . import api
    from .generation.library import check_output
    from .generation.request import Request
    from .generation.rows import source_of
    from .generation.runner import Runner

    request = Request(
        arguments.endpoint,
        arguments.images,
        dict(map(_setting, arguments.settings)),
        mesh=arguments.mesh,
        max_cost=arguments.max_cost,
        cut_out=arguments.cut_out,
    )
    source = source_of(arguments.images)
    if source:
        return cli_batch.run(arguments, source, request, show)
    if arguments.output is not None:
        check_output(arguments.output)
        wish = {"output": str(arguments.output.absolute())}
        request = dataclasses.replace(request, wish=wish)
    runner = Runner(api.config())
    try:
        cli_jobs.finish(runner, runner.submit(request), show, arguments.timeout)
    finally:
        runner.close()
    return 0


def _price(arguments: argparse.Namespace, show: Show) -> None:
    from . import api

    found = api.price(
        arguments.endpoint, dict(map(_setting, arguments.settings)), image=arguments.image
    )
    words = _price_words(found)
    if arguments.image and found["source"] != "the service":
        words += " The service itself said nothing."
    show.data(found, lambda: words)


def _price_words(found: dict[str, Any]) -> str:
    if found["amount"] is None:
        return "Nothing is charged."
    low, high = amount(found["low"]), amount(found["high"])
    span = "" if low == high else f", {low} to {high}"
    source = f"{found['source']}, {found['date']}"
    return f"About {amount(found['amount'])} {found['currency']}{span} (an estimate; {source})"


def _spent(arguments: argparse.Namespace, show: Show) -> None:
    from . import api
    from .generation.journal import Journal

    journal = Journal(api.config().home)
    try:
        months = [dataclasses.asdict(spent) for spent in journal.spent()]
    finally:
        journal.close()

    def words() -> str:
        lines = [
            f"{row['month']}  {row['service']:<8} {row['jobs']:>5} jobs  {money(row)}"
            for row in months
        ]
        return "\n".join(lines) or "Nothing was charged."

    show.data(months, words)


def _endpoints(arguments: argparse.Namespace, show: Show) -> None:
    from .endpoints import get
    from .endpoints.schema import schemas

    if arguments.endpoint:
        get(arguments.endpoint)
        schema = schemas()[arguments.endpoint]
        show.data({arguments.endpoint: schema}, lambda: _table(arguments.endpoint, schema))
    else:
        show.data(schemas(), _titles)


def _titles() -> str:
    from .endpoints.schema import schemas

    lines = [f"{name:<32} {schema['title']}" for name, schema in schemas().items()]
    return "\n".join([*lines, "", "`endpoints ID` lists the parameters of one."])


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


def _sidecar(arguments: argparse.Namespace, show: Show) -> int:
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


def _doctor(arguments: argparse.Namespace, show: Show) -> None:
    from . import api
    from .doctor import examine

    found = examine(api.config())
    show.data(found, lambda: "\n".join(f"{name:<22} {value}" for name, value in found.items()))
