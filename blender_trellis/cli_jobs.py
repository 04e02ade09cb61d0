# SPDX-License-Identifier: GPL-3.0-or-later
"""`trellis jobs`: what was asked for, and what to do with it. Also how the command line waits for any job."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_show import Show, money
from .errors import CancelledError, InputError, OutputError, TrellisError
from .generation.job import ENDED, Job, State

if TYPE_CHECKING:
    from .generation.runner import Runner

# What each action takes after its name
_ACTIONS = {
    "list": (),
    "show": ("ID",),
    "resume": ("[ID]",),
    "cancel": ("ID",),
    "forget": ("ID",),
    "send-again": ("ID",),
    "adopt": ("ID", "REQUEST"),
}
HELP = """\
actions:
  list                all jobs, the newest first
  show ID             everything about one
  resume [ID]         go on with what is unfinished, or with that one; uncertain ones are asked for
  cancel ID           call it off; at Runware, stop waiting for it
  forget ID           take it out of the list; its files stay
  send-again ID       send an uncertain job anew, though it may be charged twice
  adopt ID REQUEST    go on with an uncertain job that the service's pages call REQUEST

The first characters of an ID are enough.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The action and what it takes."""
    parser.add_argument("action", nargs="?", default="list", choices=_ACTIONS, metavar="ACTION")
    parser.add_argument("given", nargs="*", metavar="ID")


def run(arguments: argparse.Namespace, show: Show) -> int:
    """Carry out one of the actions."""
    from . import api
    from .generation.runner import Runner

    _check_given(arguments.action, arguments.given)
    runner = Runner(api.config())
    try:
        job = _find(runner, arguments.given[0]) if arguments.given else None
        if job is None:
            if arguments.action == "resume":
                return _resume(runner, show, None, arguments.timeout)
            _list(runner, show)
            return 0
        return _act(arguments, runner, job, show)
    finally:
        runner.close()


def _act(arguments: argparse.Namespace, runner: Runner, job: Job, show: Show) -> int:
    match arguments.action:
        case "show":
            show.data(dataclasses.asdict(job), lambda: _everything(job))
        case "forget":
            runner.journal.forget(job.id)
            show.data({"forgotten": job.id}, lambda: "Forgotten. Its files stay.")
        case "cancel":
            _cancel(runner, job, show)
        case "resume":
            return _resume(runner, show, job.id, arguments.timeout)
        case "send-again":
            runner.send_again(job.id)
            finish(runner, job.id, show, arguments.timeout)
        case "adopt":
            runner.adopt(job.id, arguments.given[1])
            finish(runner, job.id, show, arguments.timeout)
    return 0


def _check_given(action: str, given: list[str]) -> None:
    wanted = _ACTIONS[action]
    least = sum(not name.startswith("[") for name in wanted)
    if not least <= len(given) <= len(wanted):
        takes = " ".join(("jobs", action, *wanted))
        raise InputError(f"Use it as `{takes}`; `jobs` lists all ids.")


def _find(runner: Runner, text: str) -> Job:
    """The job whose id is `text`, or begins with it."""
    found = [job for job in runner.journal.jobs() if job.id.startswith(text)]
    if len(found) > 1:
        raise InputError(
            f"{len(found)} jobs have an id that begins with {text!r}. Give more of it."
        )
    return found[0] if found else runner.journal.get(text)


def _list(runner: Runner, show: Show) -> None:
    jobs = runner.journal.jobs()
    show.data(
        [dataclasses.asdict(job) for job in jobs],
        lambda: "\n".join(map(_words, jobs)) or "No jobs.",
    )


def _words(job: Job) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created))
    error = f"  {job.error['message']}" if job.error else ""
    return f"{job.id}  {when}  {job.state:<11}  {job.endpoint}  {job.title}{error}"


def _everything(job: Job) -> str:
    """A job for people: a line for each thing that is known."""
    rows = [
        ("job", job.id),
        ("title", job.title),
        ("endpoint", job.endpoint),
        ("state", job.state),
        ("created", _moment(job.created)),
        ("updated", _moment(job.updated)),
        *(("picture", name) for name in job.names),
        *((f"  {name}", value) for name, value in job.parameters.items()),
        ("request", job.request_id or "none"),
        ("cost", money(job.cost) if job.cost else "none"),
        *(("file", path) for path in job.files),
    ]
    if job.error:
        rows.append(("error", job.error["message"]))
    return "\n".join(f"{name:<24} {value}" for name, value in rows)


def _moment(time_: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_))


def _resume(runner: Runner, show: Show, job_id: str | None, timeout: float | None) -> int:
    """Go on with what other processes left behind, in the order it was asked for, or with one job of it.

    An interrupt cancels a single job, as it does where it is made; several are left as they are.
    """
    code = 0
    left = runner.resume(job_id)
    if not left:
        show.data([], lambda: "Nothing is left to resume.")
    deadline = None if timeout is None else time.monotonic() + timeout
    for job in left:
        try:
            if job.state == "ready":
                if "output" in job.wish:
                    show.result(job, deliver(runner, job))
            else:
                show.resumed(job)
                seconds = None if deadline is None else max(deadline - time.monotonic(), 0)
                finish(runner, job.id, show, seconds, cancel=len(left) == 1)
        except TrellisError as error:
            error.job_id = job.id
            show.error(error)
            code = error.exit_code
    return code


def _cancel(runner: Runner, job: Job, show: Show) -> None:
    """End a job, whoever works on it."""
    if job.state in ENDED:
        raise InputError(f"Job {job.id} is {job.state} already.")
    runner.journal.note(job.id, cancel_asked=True)
    if job.state == "uncertain" and runner.journal.claim(job.id):
        runner.journal.move(job.id, State.CANCELLED)
    elif runner.resume(job.id):
        with contextlib.suppress(CancelledError):
            runner.wait(job.id, show.event)
    else:
        show.data(
            {"cancelling": job.id},
            lambda: "The Blender or command that has it will cancel it if it works on it.",
        )
        return
    show.data({"cancelled": job.id}, lambda: "Cancelled.")


def finish(
    runner: Runner, job_id: str, show: Show, timeout: float | None = None, *, cancel: bool = True
) -> None:
    """Wait for a job, and do with its result what was wished. An interrupt shall `cancel` it, or is passed on."""
    try:
        job = runner.wait(job_id, show.event, timeout)
    except KeyboardInterrupt:
        if not cancel:
            raise
        runner.cancel(job_id)
        job = runner.wait(job_id, show.event)
    show.result(job, deliver(runner, job))


def deliver(runner: Runner, job: Job) -> list[Path]:
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
    finally:  # it has been tried: asking for it again with every `jobs resume` would help nobody, but for a scene
        runner.journal.note(job.id, fulfilled="scene" not in job.wish)
