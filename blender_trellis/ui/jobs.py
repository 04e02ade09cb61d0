# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs as the panel shows them, filled from the runner's events and the journal. Panels read this and nothing slower."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..endpoints.schema import schemas
from ..generation.job import ENDED, Event, Job, State
from .text import said, tr

if TYPE_CHECKING:
    from pathlib import Path

    from ..generation.batch import Progress
    from ..generation.journal import Spent
    from ..generation.waits import Kind

_WORDS = {
    State.PREPARED: "Preparing",
    State.SUBMITTING: "Sending",
    State.RUNNING: "Waiting",
    State.DOWNLOADING: "Downloading",
    State.UNCERTAIN: "Asking",
}
# The services whose class says that it is not `cancellable`; asking the class would import their packages
_NO_CANCEL = {"runware"}
PAGE = 12  # results on a page
SHOWN = 20  # jobs drawn in full
LOGGED = 50  # lines of its log that a job keeps
ASKING = "Asking…"  # what a key says until its service has answered


@dataclass
class JobView:
    """One job. `picture` is the path of its first input picture; `error` is what to tell the user, "" while all is well, and
    `parameter` the documented name of the parameter to blame for it.

    `output` is where a batch wants its model, "" if none does.

    `importing`: its model is on the way into a scene. `stopped`: nobody works on it until it is resumed, or the next start.
    `ahead` is how many jobs come first, while it waits for its turn. `job` is what the journal says, None before there is a row;
    `thumbnail` the path of its model's picture, "" while there is none; `log` what it told, `expanded` whether that is shown.
    """

    id: str
    title: str
    endpoint: str
    state: State = State.PREPARED
    stage: str = ""
    step: int = 0
    steps: int = 0
    fraction: float | None = None
    left: str = ""
    message: str = ""
    error: str = ""
    parameter: str = ""
    request_id: str = ""
    picture: str = ""
    output: str = ""
    files: list[str] = field(default_factory=list)
    importing: bool = False
    stopped: bool = False
    ahead: int = 0
    job: Job | None = None
    thumbnail: str = ""
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOGGED))
    expanded: bool = False
    created: float = field(default_factory=time.time)

    @property
    def service(self) -> str:
        """Who makes it, shortly: "This computer"."""
        title: str = schemas().get(self.endpoint, {}).get("title", self.endpoint)
        return tr(title.rpartition(" · ")[2])

    @property
    def at_work(self) -> bool:
        """Whether something still happens to it by itself."""
        return self.importing or not (self.state in ENDED or self.stopped)

    @property
    def uncertain(self) -> bool:
        """Whether it may be at the service, and only the user can say what to do."""
        return self.stopped and self.state is State.UNCERTAIN

    @property
    def failed(self) -> bool:
        """Whether it came to nothing, and can be asked for anew."""
        return bool(self.error) and not self.at_work and self.state is State.FAILED

    @property
    def resumable(self) -> bool:
        """Whether it can go on where it stopped."""
        return self.stopped and self.state not in ENDED | {State.UNCERTAIN}

    @property
    def cancellable(self) -> bool:
        """Whether its service can call it off; else one can only stop waiting for it."""
        return schemas().get(self.endpoint, {}).get("service") not in _NO_CANCEL

    @property
    def progress(self) -> str:
        """The words on the bar: "Texture 3/8 · 41%"."""
        if self.importing:
            return tr("Importing")
        if self.ahead:
            words = (
                tr("Waiting for 1 other") if self.ahead == 1 else tr("Waiting for {count} others")
            )
            return words.format(count=self.ahead)
        words = tr(
            self.stage.replace("_", " ").capitalize() if self.stage else _WORDS.get(self.state, "")
        )
        if self.steps:
            words += f" {self.step}/{self.steps}"
        percent = self.percent
        done = "" if percent is None else f"{percent}%"
        left = "" if percent == 100 else said(self.left)
        return " · ".join(filter(None, (words, done, left)))

    @property
    def percent(self) -> int | None:
        """How much of it is done, as it is shown: 100 only when nothing is left; None where nobody tells."""
        return None if self.fraction is None else int(self.fraction * 100)

    def tell(self, message: str) -> None:
        """Another line for the log; one that differs from the last in numbers alone takes its place."""
        if self.log and _wordless(self.log[-1].partition(" ")[2]) == _wordless(message):
            self.log.pop()
        self.log.append(f"{time.strftime('%H:%M:%S')} {message}")

    def drawn(self) -> tuple[Any, ...]:
        """All that can be seen of it; while this is the same, there is nothing to draw again."""
        shown = (self.state, self.stage, self.step, self.steps, self.message, self.error)
        return (
            *shown,
            self.percent,
            self.left,
            self.importing,
            self.stopped,
            self.ahead,
            self.title,
            len(self.files),
        )


@dataclass
class BatchView:
    """A batch of `total` rows, whose results are in `folder`. `progress` is None until it has begun.

    `stopping`: nothing more of it is sent. `over`: nothing happens to it any more; `error` is what to tell the user then, "" if
    all is well.
    """

    id: str
    title: str
    folder: str
    total: int
    progress: Progress | None = None
    stopping: bool = False
    over: bool = False
    error: str = ""

    @property
    def complete(self) -> bool:
        """Whether all rows have their models."""
        return self.progress is not None and self.progress.ready == self.total

    @property
    def fraction(self) -> float:
        """How much of it is done."""
        return self.progress.done / self.total if self.progress else 0.0


class Page(NamedTuple):
    """A page of the history. `found` is how many results the `search` finds, `total` how many there are; `thumbnails` are the
    paths of models' pictures by job."""

    search: str = ""
    offset: int = 0
    jobs: tuple[Job, ...] = ()
    found: int = 0
    total: int = 0
    thumbnails: Mapping[str, str] = MappingProxyType({})


class Board:
    """All jobs that the panel shows, newest first. `dirty` says that a redraw is due, `fault` why nothing works at all.

    `spent` is what was spent, by month and service; `waits` how many seconds a model takes, by kind; `keys` what each service
    says of its key, in words. `page` is the part of the history that the panel shows, `search` and `offset` what is wanted of
    it.
    """

    def __init__(self) -> None:
        self.views: dict[str, JobView] = {}
        self.batches: dict[str, BatchView] = {}
        self.dirty = False
        self.fault = ""
        self.spent: list[Spent] = []
        self.waits: dict[Kind, float] = {}
        self.keys: dict[str, str] = {}
        self.page = Page()
        self.search, self.offset = "", 0

    def add(self, view: JobView) -> JobView:
        """Show a job, above the ones that are there."""
        self.views = {view.id: view, **self.views}
        self.dirty = True
        return view

    def add_batch(self, view: BatchView) -> None:
        """Show a batch; those that are over make room for it."""
        kept = {each.id: each for each in self.batches.values() if not each.over}
        self.batches = {view.id: view, **kept}
        self.dirty = True

    def forget_failed(self, outputs: set[str]) -> None:
        """Show failed jobs no longer whose models a batch is about to ask for again."""
        for view in [*self.views.values()]:
            if view.failed and view.output in outputs:
                self.remove(view.id)

    def load(self, jobs: Iterable[Job], inputs: Path) -> None:
        """Show jobs from the journal, newest first, below what is there."""
        for job in jobs:
            if job.id not in self.views:
                self.views[job.id] = JobView(job.id, job.title, job.endpoint, job.state)
            self.know(job, inputs)

    def know(self, job: Job, inputs: Path) -> None:
        """What the journal says about a job that is shown; how far it is, events tell sooner."""
        view = self.views.get(job.id)
        if view is None:
            return
        view.job, view.created = job, job.created
        view.title, view.files = job.title, list(job.files)
        view.output = job.wish.get("output", "")
        view.request_id = job.request_id or ""
        view.picture = str(inputs / job.images[0]) if job.images else ""
        self.dirty = True

    def turn(self, page: Page, inputs: Path) -> None:
        """Show a page of the history, unless another one is wanted by now; results that are on none are let go."""
        if page.search != self.search:
            return
        self.page, self.offset, self.dirty = page, page.offset, True
        here = {job.id for job in page.jobs}
        kept = {
            view.id: view
            for view in self.views.values()
            if view.id in here or view.at_work or view.error or not view.files
        }
        for job in page.jobs:
            kept.setdefault(job.id, JobView(job.id, job.title, job.endpoint, job.state))
        self.views = kept
        for job in page.jobs:
            self.know(job, inputs)
            kept[job.id].thumbnail = page.thumbnails.get(job.id) or kept[job.id].thumbnail
        newest_first = sorted(kept.values(), key=lambda view: view.created, reverse=True)
        self.views = {view.id: view for view in newest_first}

    def take(self, event: Event) -> None:
        """Something happened to a job."""
        view = self.views.get(event.job_id)
        if view is None:
            return
        before = view.drawn()
        view.state = event.state
        view.stage, view.step, view.steps = event.stage, event.step, event.steps
        view.fraction, view.left = event.fraction, event.left
        view.ahead = event.ahead
        view.message = event.message or view.message
        if event.message:
            view.tell(event.message)
        error = event.error or {}
        view.stopped, view.error = bool(error), error.get("message", "")
        view.parameter = error.get("parameter", "")
        view.request_id = error.get("request_id") or view.request_id
        if event.state is State.CANCELLED:
            del self.views[event.job_id]
        self.dirty |= view.drawn() != before

    def fail(self, job_id: str | None, message: str) -> None:
        """A job cannot go on, for a reason of this side; one that the runner never got has failed. None: nothing works."""
        if job_id is None:
            self.fault, self.dirty = message, True
            return
        view = self.views.get(job_id)
        if view:
            view.error, view.importing, view.stopped = message, False, True
            refused = view.state is State.PREPARED and view.job is None
            view.state = State.FAILED if refused else view.state
            self.dirty = True

    def note(self, job_id: str, message: str) -> None:
        """Something to be read about a job that went well."""
        view = self.views.get(job_id)
        if view:
            view.error, self.dirty = message, True

    def take_up(self, job_id: str) -> None:
        """Somebody works again on a job that had stopped."""
        view = self.views.get(job_id)
        if view:
            view.error, view.parameter, view.message, view.stopped = "", "", "", False
            view.stage, view.step, view.steps, view.fraction, view.left = "", 0, 0, None, ""
            self.dirty = True

    def pictured(self, job_id: str, path: str) -> None:
        """There is a picture of its model now."""
        view = self.views.get(job_id)
        if view:
            view.thumbnail, self.dirty = path, True

    def blamed(self, endpoint: str) -> set[str]:
        """The parameters of `endpoint`, by documented name, that jobs which are shown have failed for."""
        shown = (view for view in self.jobs() if view.endpoint == endpoint and not view.at_work)
        return {view.parameter for view in shown if view.parameter}

    def set_importing(self, job_id: str, importing: bool) -> None:
        """Its model begins or ends being brought into a scene."""
        view = self.views.get(job_id)
        if view and view.importing != importing:
            view.importing = importing
            view.error = "" if importing else view.error
            self.dirty = True

    def title(self, job_id: str) -> str:
        """What a job is called, if it is shown."""
        view = self.views.get(job_id)
        return view.title if view else tr("A model")

    def remove(self, job_id: str) -> None:
        """Show it no longer."""
        if self.views.pop(job_id, None):
            self.dirty = True

    @property
    def at_work(self) -> bool:
        """Whether a job or a batch is on its way."""
        of_batches = any(not view.over for view in self.batches.values())
        return of_batches or any(view.at_work for view in self.views.values())

    def jobs(self) -> list[JobView]:
        """What the Jobs panel lists: at work, or ended in a way that wants to be read."""
        return [view for view in self.views.values() if view.at_work or view.error]

    def shown(self) -> list[JobView]:
        """The jobs that are drawn: of very many, those that wait in the line are left out first."""
        listed = self.jobs()
        if len(listed) <= SHOWN:
            return listed
        first = {view.id for view in sorted(listed, key=lambda view: view.ahead)[:SHOWN]}
        return [view for view in listed if view.id in first]

    def results(self) -> list[JobView]:
        """What the Results panel lists: also what is still being imported.

        So a job is in both panels for a moment, and they appear one after the other: Blender would put a panel that
        comes back below one that took its place.
        """
        return [self.views[job.id] for job in self.page.jobs if job.id in self.views]


def _wordless(text: str) -> str:
    return re.sub(r"\d+", "", text)
