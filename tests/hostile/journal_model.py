# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal against a model of a few lines: random histories of several processes that open, work, die and claim."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from blender_trellis.errors import InputError
from blender_trellis.generation.job import Job, State
from blender_trellis.generation.journal import Journal

_ENDS = {State.READY, State.FAILED, State.CANCELLED}
# The diagram at the head of generation/job.py, written down once more
_FOLLOWS = {
    State.PREPARED: {State.SUBMITTING},
    State.SUBMITTING: {State.PREPARED, State.RUNNING, State.UNCERTAIN},
    State.RUNNING: {State.DOWNLOADING},
    State.DOWNLOADING: {State.READY},
    State.UNCERTAIN: {State.PREPARED, State.RUNNING},
}
_COSTS = st.none() | st.integers(0, 400).map(
    lambda cents: {"amount": cents / 100, "currency": "USD", "estimate": cents % 2 == 0}
)
_ANY = st.integers(0, 50)
_ENDPOINTS = st.sampled_from(["fal-ai/trellis-2", "runware/trellis-2", "local/draft"])


@dataclass
class Row:
    """What the journal must know of a job."""

    state: State
    owner: Journal | None
    cost: dict[str, Any] | None = None
    request_id: str | None = None
    fulfilled: bool = False
    cancel_asked: bool = False


class JournalMachine(RuleBasedStateMachine):
    """`rows` and `charges` are the model; `open` are the processes that live."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="journal-"))
        self.open: list[Journal] = [Journal(self.home)]
        self.rows: dict[str, Row] = {}
        self.charges: dict[str, float] = {}

    def teardown(self) -> None:
        for journal in self.open:
            journal.close()
        shutil.rmtree(self.home)

    def _journal(self, number: int) -> Journal:
        return self.open[number % len(self.open)]

    def _job(self, number: int) -> str:
        return [*self.rows][number % len(self.rows)] if self.rows else str(uuid.UUID(int=0))

    @precondition(lambda self: len(self.open) < 3)
    @rule()
    def opens(self) -> None:
        self.open.append(Journal(self.home))

    @precondition(lambda self: len(self.open) > 1)
    @rule(which=_ANY)
    def closes(self, which: int) -> None:
        journal = self._journal(which)
        self.open.remove(journal)
        journal.close()
        self._orphan(journal)

    @precondition(lambda self: len(self.open) > 1)
    @rule(which=_ANY)
    def dies_within_a_transaction(self, which: int) -> None:
        """All that a killed process leaves: no commit, a free lock, and its owner's file."""
        journal = self._journal(which)
        self.open.remove(journal)
        journal._database.execute("BEGIN IMMEDIATE")
        journal._database.execute("UPDATE job SET state = 'ready', cost = NULL, owner = 'nobody'")
        journal._database.execute("DELETE FROM charge")
        journal._database.close()
        journal._alive.release()
        self._orphan(journal)

    def _orphan(self, journal: Journal) -> None:
        for row in self.rows.values():
            if row.owner is journal:
                row.owner = None

    @rule(which=_ANY, endpoint=_ENDPOINTS, cost=_COSTS)
    def adds(self, which: int, endpoint: str, cost: dict[str, Any] | None) -> None:
        journal = self._journal(which)
        job = Job(str(uuid.uuid4()), endpoint, {"seed": 1}, ["a.png"], ["Bild 人.png"], cost=cost)
        journal.add(job)
        self.rows[job.id] = Row(State.PREPARED, journal, cost)

    @rule(which=_ANY, what=_ANY, state=st.sampled_from(State), cost=_COSTS, keep=st.booleans())
    def moves(
        self, which: int, what: int, state: State, cost: dict[str, Any] | None, keep: bool
    ) -> None:
        """Anywhere, also where no job may go. What `keep`s its cost is charged the estimate."""
        self._move(self._journal(which), self._job(what), state, {} if keep else {"cost": cost})

    @precondition(lambda self: any(row.owner for row in self.rows.values()))
    @rule(what=_ANY, step=st.integers(0, 2), cost=_COSTS)
    def goes_on(self, what: int, step: int, cost: dict[str, Any] | None) -> None:
        """As it should: its owner, to a state that may follow."""
        owned = [job_id for job_id, row in self.rows.items() if row.owner]
        job_id = owned[what % len(owned)]
        row = self.rows[job_id]
        follows = sorted(_FOLLOWS.get(row.state, ()))
        if follows:
            assert row.owner
            self._move(row.owner, job_id, follows[step % len(follows)], {"cost": cost})

    def _move(self, journal: Journal, job_id: str, state: State, changes: dict[str, Any]) -> None:
        row = self.rows.get(job_id)
        allowed = row and (
            state in _FOLLOWS.get(row.state, ())
            or (state in (State.FAILED, State.CANCELLED) and row.state not in _ENDS)
        )
        try:
            moved = journal.move(job_id, state, **changes)
        except InputError:
            assert row is None
            return
        except ValueError:
            assert row and not (allowed and row.owner is journal)
            return
        assert row and allowed and row.owner is journal and moved.state is state
        row.state = state
        row.cost = changes.get("cost", row.cost)
        if state in _ENDS and row.cost:
            self.charges[job_id] = row.cost["amount"]

    @rule(which=_ANY, what=_ANY, number=_ANY, asked=st.booleans(), done=st.booleans())
    def notes(self, which: int, what: int, number: int, asked: bool, done: bool) -> None:
        job_id = self._job(what)
        changes = {"request_id": f"r-{number}", "cancel_asked": asked, "fulfilled": done}
        with suppress(InputError):
            self._journal(which).note(job_id, **changes)
            row = self.rows[job_id]
            row.request_id, row.cancel_asked, row.fulfilled = f"r-{number}", asked, done

    @rule(which=_ANY, what=st.none() | _ANY)
    def claims(self, which: int, what: int | None) -> None:
        """What nobody works on any more, or one job; a living process keeps its own."""
        journal, job_id = self._journal(which), None if what is None else self._job(what)
        expected = []
        for each, row in self.rows.items():
            if row.state in (State.FAILED, State.CANCELLED) or (
                row.state is State.READY and row.fulfilled
            ):
                continue
            if row.owner is journal and each == job_id:
                row.cancel_asked = False
                expected.append(each)
            elif row.owner is None and job_id in (None, each):
                row.owner = journal
                expected.append(each)
        assert [job.id for job in journal.claim(job_id)] == expected

    @rule(which=_ANY, what=_ANY)
    def forgets(self, which: int, what: int) -> None:
        job_id = self._job(what)
        row = self.rows.get(job_id)
        try:
            self._journal(which).forget(job_id)
        except InputError:
            assert row is None or row.state not in _ENDS | {State.UNCERTAIN}
        else:
            assert row and row.state in _ENDS | {State.UNCERTAIN}
            del self.rows[job_id]

    @invariant()
    def all_see_the_same_and_nothing_is_lost(self) -> None:
        expected = {
            job_id: (row.state, row.cost, row.request_id, row.fulfilled, row.cancel_asked)
            for job_id, row in self.rows.items()
        }
        for journal in self.open:
            seen = {
                job.id: (job.state, job.cost, job.request_id, job.fulfilled, job.cancel_asked)
                for job in journal.jobs()
            }
            assert seen == expected

    @invariant()
    def the_books_are_right(self) -> None:
        spent = self.open[0].spent()
        assert abs(sum(row.amount for row in spent) - sum(self.charges.values())) < 1e-6
        assert sum(row.jobs for row in spent) == len(self.charges)


def _seeded(seed: int) -> type[JournalMachine]:
    class Seeded(JournalMachine):
        """The same, of which Hypothesis makes other histories."""

    return hypothesis.seed(seed)(Seeded)


def run(examples: int, steps: int, seed: int | None = None) -> None:
    """Try as many histories, each of at most so many steps; the same ones each time, and others for each `seed`."""
    machine = JournalMachine if seed is None else _seeded(seed)
    told = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(machine, settings=told)  # type: ignore[no-untyped-call]
