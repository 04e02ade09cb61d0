# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: every job as a row in SQLite, committed before anything of it happens.

Several processes share one journal (Blenders, the command line). Each has an owner's lock beside it, and works only on jobs
that it owns; a job whose owner is dead can be claimed by another. `synchronous=FULL` makes a commit survive a power cut.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..endpoints.schema import schemas
from ..errors import InputError, StorageError
from ..home import FileLock
from .job import ENDED, MOVES, Job, State
from .library import storage_error

_MIGRATIONS = (
    """
    CREATE TABLE job (
        id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, parameters TEXT NOT NULL, images TEXT NOT NULL,
        names TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL,
        ticket TEXT, request_id TEXT, files TEXT NOT NULL, cost TEXT, error TEXT,
        wish TEXT NOT NULL, fulfilled INTEGER NOT NULL, cancel_asked INTEGER NOT NULL, owner TEXT NOT NULL
    ) STRICT;
    CREATE INDEX job_by_time ON job (created);
    """,
    """
    ALTER TABLE job ADD COLUMN mesh TEXT;
    ALTER TABLE job ADD COLUMN seeds TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE job ADD COLUMN max_cost REAL;
    CREATE TABLE charge (
        job_id TEXT PRIMARY KEY, service TEXT NOT NULL, time REAL NOT NULL,
        amount REAL NOT NULL, currency TEXT NOT NULL, estimate INTEGER NOT NULL
    ) STRICT;
    """,
    """
    ALTER TABLE job ADD COLUMN submitted REAL;
    ALTER TABLE job ADD COLUMN ready REAL;
    """,
)
_TIMES = {State.SUBMITTING: "submitted", State.READY: "ready"}  # when a job last came to a state
_LOCK_TIMEOUT = 30.0  # seconds to wait for another process
_JSON = {"parameters", "images", "names", "ticket", "files", "cost", "error", "wish", "seeds"}
_BOOLEAN = {"fulfilled", "cancel_asked"}
_COLUMNS = [column.name for column in fields(Job)]


@dataclass(frozen=True)
class Spent:
    """What a month ("2026-11") cost at one service. `estimate`: the service did not name the charge of every job."""

    month: str
    service: str
    amount: float
    currency: str
    jobs: int
    estimate: bool


class Part(NamedTuple):
    """A job that is for a row of a batch, as its wish says: {"batch": {"id", "row", "mark"}}. `taken_on`: by its service."""

    row: str
    mark: str
    job_id: str
    state: State
    cost: dict[str, Any] | None
    error: dict[str, Any] | None
    taken_on: bool


class Journal:
    """The jobs of one home folder. Safe to use from several threads."""

    def __init__(self, home: Path) -> None:
        self._lock = threading.Lock()
        self._owners = home / "owners"
        self._owner = uuid.uuid4().hex
        self._alive = FileLock(self._owners / self._owner)
        try:
            home.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                home / "journal.sqlite3",
                timeout=_LOCK_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,
            )
        except (OSError, sqlite3.Error) as error:
            raise _cannot_open(error, home) from error
        try:
            self._database.row_factory = sqlite3.Row
            self._database.create_function("casefold", 1, str.casefold, deterministic=True)
            _turn_to_wal(self._database)
            self._database.execute("PRAGMA synchronous = FULL")
            self._migrate()
            with self._transaction():  # so that nobody looks for dead owners meanwhile
                self._alive.acquire()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError | sqlite3.Error):
                raise _cannot_open(error, home) from error
            raise

    def close(self) -> None:
        """Give up ownership; unfinished jobs can be claimed by others from now on."""
        with self._lock:
            self._database.close()
        self._alive.release()
        (self._owners / self._owner).unlink(missing_ok=True)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise StorageError(
                    f"Cannot write the journal: {error}. Free some space or check the disk."
                ) from error
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def _migrate(self) -> None:
        with self._transaction() as database:
            done = database.execute("PRAGMA user_version").fetchone()[0]
            if done > len(_MIGRATIONS):
                raise StorageError(
                    "The journal was written by a newer version of Trellis. Update this one, or set another TRELLIS_HOME."
                )
            for number, script in enumerate(_MIGRATIONS[done:], done + 1):
                for statement in script.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {number}")

    def add(self, job: Job) -> Job:
        """Commit a new job, owned by this process; `created` now unless it says when."""
        now = time.time()
        job = replace(job, created=job.created or now, updated=now)
        values = [_to_column(name, getattr(job, name)) for name in _COLUMNS]
        marks = ", ".join("?" * (len(_COLUMNS) + 1))
        with self._transaction() as database:
            database.execute(
                f"INSERT INTO job ({', '.join(_COLUMNS)}, owner) VALUES ({marks})",
                [*values, self._owner],
            )
        return job

    def move(self, job_id: str, state: State, **changes: Any) -> Job:
        """Commit a job's next state together with what became known.

        Raises:
            ValueError: that state cannot follow the present one, or the job is another process's.
        """
        with self._transaction() as database:
            job, owner = self._select(database, job_id)
            if state not in MOVES[job.state]:
                raise ValueError(f"a job cannot go from {job.state} to {state}")
            if owner != self._owner:
                raise ValueError(f"job {job_id} belongs to another process")
            changes |= {_TIMES[state]: time.time()} if state in _TIMES else {}
            moved = self._update(database, replace(job, state=state, **changes))
            if state in ENDED and moved.cost:
                self._charge(database, moved)
            return moved

    @staticmethod
    def _charge(database: sqlite3.Connection, job: Job) -> None:
        """Enter what a job cost, in a table of its own: a job that is forgotten was paid for all the same."""
        assert job.cost
        database.execute(
            "INSERT OR REPLACE INTO charge VALUES (?, ?, ?, ?, ?, ?)",
            [
                job.id,
                schemas()[job.endpoint]["service"],
                job.updated,
                job.cost["amount"],
                job.cost["currency"],
                job.cost["estimate"],
            ],
        )

    def spent(self) -> list[Spent]:
        """What was spent, by month and service, newest month first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT strftime('%Y-%m', time, 'unixepoch', 'localtime') AS month,"
                " service, currency, sum(amount) AS amount, count(*) AS jobs, max(estimate) AS estimate"
                " FROM charge GROUP BY month, service, currency ORDER BY month DESC, service"
            ).fetchall()
        return [Spent(**dict(row) | {"estimate": bool(row["estimate"])}) for row in rows]

    def timed(self, limit: int = 200) -> list[Job]:
        """The newest ready jobs of which it is known how long they took, newest first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT * FROM job WHERE state = 'ready' AND submitted IS NOT NULL"
                " ORDER BY ready DESC LIMIT ?",
                [limit],
            ).fetchall()
        return [_to_job(row) for row in rows]

    def request_ids(self) -> frozenset[str]:
        """Every service's id of every job."""
        with self._lock:
            rows = self._database.execute("SELECT request_id FROM job WHERE request_id IS NOT NULL")
            return frozenset(row[0] for row in rows)

    def note(self, job_id: str, **changes: Any) -> Job:
        """Commit something that became known without a change of state."""
        with self._transaction() as database:
            job, _ = self._select(database, job_id)
            return self._update(database, replace(job, **changes))

    def _update(self, database: sqlite3.Connection, job: Job) -> Job:
        job = replace(job, updated=time.time())
        names = [name for name in _COLUMNS if name != "id"]
        database.execute(
            f"UPDATE job SET {', '.join(f'{name} = ?' for name in names)} WHERE id = ?",
            [*(_to_column(name, getattr(job, name)) for name in names), job.id],
        )
        return job

    def _select(self, database: sqlite3.Connection, job_id: str) -> tuple[Job, str]:
        row = database.execute("SELECT * FROM job WHERE id = ?", [job_id]).fetchone()
        if row is None:
            raise InputError(f"There is no job {job_id}. `jobs list` shows them all.")
        return _to_job(row), row["owner"]

    def get(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            InputError: there is none.
        """
        with self._lock:
            return self._select(self._database, job_id)[0]

    def jobs(self, limit: int = -1) -> list[Job]:
        """The newest jobs, newest first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT * FROM job ORDER BY created DESC LIMIT ?", [limit]
            ).fetchall()
        return [_to_job(row) for row in rows]

    def of_batch(self, batch_id: str) -> list[Part]:
        """The jobs of a batch, in the order in which they came to the journal."""
        with self._lock:
            rows = self._database.execute(
                "SELECT id, state, cost, error, ticket, wish FROM job WHERE instr(wish, ?) ORDER BY rowid",
                [batch_id],
            ).fetchall()
        found = []
        for row in rows:
            wished = json.loads(row["wish"])["batch"]
            cost, error = (row[name] and json.loads(row[name]) for name in ("cost", "error"))
            state, taken_on = State(row["state"]), row["ticket"] is not None
            part = Part(wished["row"], wished["mark"], row["id"], state, cost, error, taken_on)
            found.append(part)
        return found

    def results(self, search: str, limit: int, offset: int) -> tuple[list[Job], int]:
        """A page of the ready jobs, newest first, and how many there are in all.

        `search` is looked for in what the pictures were called and in the endpoint, each of its words.
        """
        words = search.casefold().split()
        told = " AND instr(casefold(names || endpoint), ?)" * len(words)
        where = f"FROM job WHERE state = 'ready'{told}"
        with self._lock:
            (total,) = self._database.execute(f"SELECT count(*) {where}", words).fetchone()
            rows = self._database.execute(
                f"SELECT * {where} ORDER BY created DESC LIMIT ? OFFSET ?", [*words, limit, offset]
            ).fetchall()
        return [_to_job(row) for row in rows], total

    def claim(self, job_id: str | None = None) -> list[Job]:
        """Take over what is left of processes that are gone, oldest first: jobs at work, and ready ones whose wish is open.

        With `job_id`, that one alone, and also if it is this process's own: what another process asked of it while nobody worked
        on it is over then.
        """
        claimed = []
        with self._transaction() as database:
            rows = database.execute(
                "SELECT * FROM job WHERE state NOT IN ('failed', 'cancelled')"
                " AND NOT (state = 'ready' AND fulfilled) ORDER BY created"
            ).fetchall()
            alive = self._alive_owners()
            for row in rows:
                own = row["id"] == job_id and row["owner"] == self._owner
                if own or (row["owner"] not in alive and job_id in (None, row["id"])):
                    # How long it takes tells nothing any more: nobody may have looked after it for days
                    forget_time = "" if row["ready"] else ", submitted = NULL"
                    forget_wish = ", cancel_asked = 0" if own else ""
                    database.execute(
                        f"UPDATE job SET owner = ?{forget_time}{forget_wish} WHERE id = ?",
                        [self._owner, row["id"]],
                    )
                    claimed.append(_to_job(row))
        return claimed

    def _alive_owners(self) -> set[str]:
        """The owners whose processes are there; the files of the others are removed."""
        alive = {self._owner}
        for path in self._owners.iterdir():
            lock = FileLock(path)
            if path.name == self._owner or not lock.acquire():
                alive.add(path.name)
                continue
            lock.release()
            path.unlink(missing_ok=True)
        return alive

    def forget(self, job_id: str) -> None:
        """Remove an ended or uncertain job from the journal; its files stay.

        Raises:
            InputError: there is no such job, or it is still at work.
        """
        self.delete(job_id, lambda _files, _inputs: None)

    def delete(self, job_id: str, discard: Callable[[set[str], set[str]], None]) -> None:
        """Remove an ended or uncertain job together with what only it has.

        `discard` is called with the paths of its models and the names of its inputs that no other job has; what it raises keeps
        the job.

        Raises:
            InputError: there is no such job, or it is still at work.
        """
        with self._transaction() as database:
            job, _ = self._select(database, job_id)
            if job.state not in ENDED | {State.UNCERTAIN}:
                raise InputError(f"Job {job_id} is {job.state}. Cancel it first.")
            files, inputs = set(job.files), {*job.images, *filter(None, [job.mesh])}
            for row in database.execute(
                "SELECT files, images, mesh FROM job WHERE id != ?", [job_id]
            ):
                files.difference_update(json.loads(row["files"]))
                inputs.difference_update(json.loads(row["images"]), [row["mesh"]])
            discard(files, inputs)
            database.execute("DELETE FROM job WHERE id = ?", [job_id])


def _turn_to_wal(database: sqlite3.Connection) -> None:
    """Two processes that open a new journal at once: SQLite refuses one of them at once, without waiting for its `timeout`."""
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _cannot_open(error: OSError | sqlite3.Error, home: Path) -> StorageError:
    if isinstance(error, OSError):
        return storage_error(error, home)
    file = home / "journal.sqlite3"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StorageError(
            f"The journal {file} is damaged: {error}. Move it away, with its -wal and -shm: a new one is made, and the models in "
            "the results folder stay."
        )
    return StorageError(
        f"Cannot open the journal {file}: {error}. Free some space or check the disk."
    )


def _to_column(name: str, value: Any) -> Any:
    if name in _JSON:
        return None if value is None else json.dumps(value, ensure_ascii=False)
    return int(value) if name in _BOOLEAN else value


def _to_job(row: sqlite3.Row) -> Job:
    values = {name: row[name] for name in _COLUMNS}
    for name in _JSON:
        values[name] = None if values[name] is None else json.loads(values[name])
    for name in _BOOLEAN:
        values[name] = bool(values[name])
    return Job(**values | {"state": State(row["state"])})
