# SPDX-License-Identifier: GPL-3.0-or-later
"""`trellis generate` with a folder, a pattern or a manifest: a model for each picture or row."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_show import Show, amount, confirm, money
from .endpoints.prices import CURRENCY, Estimate
from .errors import CancelledError, InputError, OutputError, TrellisError, UnreachableError
from .generation.job import Job, State

if TYPE_CHECKING:
    from .generation.batch import Progress
    from .generation.book import Book
    from .generation.request import Request
    from .generation.rows import Row
    from .generation.runner import Runner

INCOMPLETE = 5  # the exit code of a batch that was carried through, and has rows without a model


def add_options(parser: argparse.ArgumentParser) -> None:
    """What only a batch has."""
    options = parser.add_argument_group("options of a batch")
    options.add_argument("--yes", action="store_true", help="spend without a question")
    options.add_argument(
        "--retry-failed", action="store_true", help="send the rows that failed once more"
    )


def run(arguments: argparse.Namespace, source: str, asked: Request, show: Show) -> int:
    """Make a model for each row of `source`, of which `asked` holds what they have in common."""
    from . import api
    from .generation.book import Book
    from .generation.rows import read_rows, refuse
    from .generation.runner import Runner

    folder = _folder(arguments.output)
    rows, problems = read_rows(source, asked)
    count = len(rows) + len(problems)
    _check_blends(rows)
    runner = Runner(api.config())
    try:
        with contextlib.closing(Book(folder, runner.config.home)) as book:
            command = _Command(arguments, show, runner, book, rows)
            # What lies in a folder is nobody's request; what cannot be read of it gets its line
            problems += command.batch.check(pictures=Path(source).is_file())
            refuse(problems, count)
            command.ask()
            return command.carry_out()
    finally:
        runner.close()


def _folder(output: Path | None) -> Path:
    if output is None:
        raise InputError("A batch makes many files. Give --output the folder for them.")
    if output.exists() and not output.is_dir():
        raise OutputError(f"Cannot write to {output}: it is no folder. A batch needs one.")
    return output


def _check_blends(rows: Sequence[Row]) -> None:
    wanted = any(row.output.lower().endswith(".blend") for row in rows)
    if wanted and importlib.util.find_spec("bpy") is None:
        raise OutputError(
            "Only Blender, or Python with the bpy module, can write a .blend. Use .glb here."
        )


class _Command:
    """One run of a batch: the question before it, what is shown meanwhile, and what it ends with."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        show: Show,
        runner: Runner,
        book: Book,
        rows: Sequence[Row],
    ) -> None:
        from .generation.batch import Batch

        self._arguments = arguments
        self._show = show
        self._runner = runner
        self._book = book
        self._rows = rows
        self.batch = Batch(
            runner,
            book,
            rows,
            deliver=self._deliver,
            written=self._written,
            max_cost=arguments.max_cost,
            retry_failed=arguments.retry_failed,
        )

    def ask(self) -> None:
        """Say what will be done, and go on only if what it costs is allowed.

        Raises:
            AccessError, PriceError: a key is missing, or it is dearer than the limit.
            InputError: there is nobody to ask.
            CancelledError: the answer is no.
        """
        cost = self.batch.estimate()
        self.batch.check_access()
        count, to_send = len(self._rows), self.batch.to_send
        plan = {"rows": count, "to_send": to_send, "estimate": cost and dataclasses.asdict(cost)}
        self._show.plan(plan, f"{to_send} of {count} models to make{_price(cost)}.")
        if cost is None or self._arguments.yes or self._arguments.max_cost is not None:
            return
        unasked = (
            f"Nothing was sent: this would cost about {amount(cost.amount)} {CURRENCY}, and nobody can be asked here. Say "
            "--yes, or give --max-cost."
        )
        confirm(self._arguments, unasked, "Nothing was sent.")

    def carry_out(self) -> int:
        """Make the models; returns the exit code."""
        try:
            with self._interruptible():
                progress = self.batch.run(self._show.batch, self._arguments.timeout)
        except KeyboardInterrupt:
            progress = self.batch.progress()
        error, files = self._why_not_all(progress), [self._book.results]
        try:
            files += self._contact_sheet()
        except OutputError as unwritten:
            error = error or unwritten
        self._show.close_line()
        if error:
            self._show.error(error)
        self._tell(progress, files)
        if error:
            return error.exit_code
        return INCOMPLETE if progress.ready < progress.total else 0

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C ends the sending; a second one the waiting for what is being made."""

        def interrupt(*_: object) -> None:
            if self.batch.interrupted:
                raise KeyboardInterrupt
            self.batch.interrupted = True
            self._show.say(
                "Nothing more is sent. What is being made is waited for; press Ctrl-C again to leave it."
            )

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _deliver(self, job: Job, output: Path) -> None:
        from . import api

        api.deliver(job, output)
        self._runner.journal.note(job.id, fulfilled=True)

    def _written(self, line: dict[str, Any]) -> None:
        from .generation.sheet import picture_in

        if line["state"] == State.READY:
            picture_in(self._book, line["output"], self._runner.journal, line["job_id"])
        self._show.row(line)

    def _why_not_all(self, progress: Progress) -> TrellisError | None:
        """Why rows have no line of results; None if all have one."""
        missing = progress.total - progress.done
        if not missing:
            return None
        of_them = "1 row is" if missing == 1 else f"{missing} rows are"
        again = f"{of_them} not done; the same command goes on."
        if self.batch.interrupted:
            return CancelledError(f"Interrupted. {again}")
        for error in self.batch.stops.values():
            return type(error)(f"{error.message} {again}")
        return UnreachableError(again[0].upper() + again[1:])

    def _tell(self, progress: Progress, files: Sequence[Path]) -> None:
        cost = {"amount": progress.cost, "currency": CURRENCY, "estimate": progress.estimate}
        value = {
            "event": "result",
            "state": "ready" if progress.ready == progress.total else "incomplete",
            "rows": progress.total,
            "ready": progress.ready,
            "failed": progress.failed,
            "uncertain": progress.uncertain,
            "cost": cost if progress.cost else None,
            "files": [str(path) for path in files],
        }
        words = f"{progress.ready} of {progress.total} models are made."
        if progress.failed:
            words += f" {progress.failed} failed; --retry-failed sends them once more."
        if progress.uncertain:
            words += f" {progress.uncertain} are uncertain, and may have been charged: `jobs --help` says what can be done."
        if progress.cost:
            words += f" Cost: {money(cost)}."
        self._show.say(words)
        self._show.data(value, lambda: "\n".join(map(str, files)))

    def _contact_sheet(self) -> list[Path]:
        from .generation.sheet import contact_sheet

        return contact_sheet(self._book, self._rows, self._runner.journal, _more_letters)


def _more_letters() -> Sequence[Path]:
    if importlib.util.find_spec("bpy") is None:
        return []
    from .scene.fonts import more_letters

    return more_letters()


def _price(cost: Estimate | None) -> str:
    if cost is None:
        return ""
    span = f", {amount(cost.low)} to {amount(cost.high)}" if cost.low != cost.high else ""
    return f" for about {amount(cost.amount)} {CURRENCY}{span} (an estimate)"
