# SPDX-License-Identifier: GPL-3.0-or-later
"""Every error that a person may get to read, as one tree.

    TrellisError
    ├── InputError           exit 2   what was given cannot be used; the message says what to change
    │   ├── ImageError                an input image is missing, broken, too small, too large or empty
    │   ├── ParameterError            an unknown parameter or a value out of range; `parameter` names it
    │   ├── EndpointError             an unknown endpoint, or one that cannot do what was asked
    │   ├── OutputError               the output file cannot be written
    │   ├── AccessError               no key, not installed, or Blender may not go online
    │   ├── PriceError                it would cost more than was allowed
    │   └── StorageError              the disk that holds journal and results is full or read-only
    ├── ServiceError         exit 3   the service answered, and the answer is no
    │   ├── RejectedError             it refused the request (validation, content, size)
    │   ├── AccountError              it refused the key or the account
    │   ├── GenerationError           it tried and failed
    │   ├── InstallError              the local engine could not be installed; trying again goes on where it stopped
    │   └── ResultError               it delivered a file that is broken or hostile
    ├── UnreachableError     exit 4   no answer, or none that can be relied on; trying later may help
    │   ├── SidecarError              the local process does not start or does not answer
    │   ├── LeftError                 nobody works on the job any more: the service goes on, or it was not sent; it can be resumed
    │   └── UncertainError            a reply was lost after a submit: the job may exist, and cost
    └── CancelledError       exit 130 the user asked for it

The message is whole sentences for the panel: what happened, whose doing it was, what was charged as far as is known, and
what to do. `request_id` is the service's own id of the request, `job_id` the journal's, `parameter` the documented name of the
parameter to blame and `cost` what the service charged all the same, where known. Nothing here may ever carry a key.
"""

from __future__ import annotations

from typing import Any


class TrellisError(Exception):
    """Base of all errors that are shown to people."""

    exit_code = 1
    state = (
        "failed"  # of the job: failed, cancelled, or uncertain where it may still come to something
    )

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        parameter: str = "",
        cost: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.parameter = parameter
        self.cost = cost
        self.job_id: str | None = None

    @property
    def kind(self) -> str:
        """The class name: what the journal and the `--json` lines call this error."""
        return type(self).__name__

    @property
    def record(self) -> dict[str, Any]:
        """What the journal keeps of it; `from_record` makes an error of it again."""
        names = ("kind", "message", "request_id", "parameter")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        return f"{self.message} (request {self.request_id})" if self.request_id else self.message


class InputError(TrellisError):
    """What was given cannot be used."""

    exit_code = 2


class ImageError(InputError):
    """An input image cannot be used."""


class ParameterError(InputError):
    """A parameter is unknown, or its value out of range."""


class EndpointError(InputError):
    """An endpoint is unknown, or cannot do what was asked of it."""


class OutputError(InputError):
    """The output file cannot be written."""


class AccessError(InputError):
    """There is no key, the engine is not installed, or Blender may not go online."""


class PriceError(InputError):
    """It would cost more than was allowed; nothing was sent."""


class StorageError(InputError):
    """Journal or results cannot be written; what was asked for stays resumable."""


class ServiceError(TrellisError):
    """The service answered, and the answer is no."""

    exit_code = 3


class RejectedError(ServiceError):
    """The service refused the request."""


class AccountError(ServiceError):
    """The service refused the key or the account."""


class GenerationError(ServiceError):
    """The service tried and failed."""


class InstallError(ServiceError):
    """The local engine could not be installed; trying again goes on where it stopped."""


class ResultError(ServiceError):
    """The service delivered a file that is broken or hostile."""


class UnreachableError(TrellisError):
    """No answer, or none that can be relied on. `pause` is how many seconds the service asked to be left alone; `answered` says
    that it did answer, in good health, and that it makes no sense."""

    exit_code = 4
    pause = 0.0
    answered = False


class SidecarError(UnreachableError):
    """The local process does not start or does not answer."""


class LeftError(UnreachableError):
    """Nobody works on the job any more: it goes on at the service, or was not sent; it can be resumed."""

    state = "uncertain"


class UncertainError(UnreachableError):
    """A reply was lost after a submit: the job may exist, and cost."""

    state = "uncertain"


class CancelledError(TrellisError):
    """The user cancelled."""

    exit_code = 130
    state = "cancelled"


def _subclasses(cls: type[TrellisError]) -> dict[str, type[TrellisError]]:
    found = {cls.__name__: cls}
    for sub in cls.__subclasses__():
        found |= _subclasses(sub)
    return found


def from_record(
    kind: str, message: str, request_id: str | None = None, parameter: str = ""
) -> TrellisError:
    """The error that the journal recorded."""
    cls = _subclasses(TrellisError).get(kind, TrellisError)
    return cls(message, request_id=request_id, parameter=parameter)
