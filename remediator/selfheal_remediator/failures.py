"""What a request to the API server, or a command, can end in instead of an answer."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


class ApiFailure(Exception):
    """A request did not end well. `status` 0 = no answer came (network, timeout)."""

    def __init__(
        self, status: int, reason: str, message: str, *, causes: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.status, self.reason, self.message, self.causes = status, reason, message, causes
        #: Seconds after which the server allows a retry; None = not given.
        self.retry_after: float | None = None
        super().__init__(f"{status or 'no answer'} {reason}: {message}".strip())

    @classmethod
    def from_status(cls, status: Json) -> ApiFailure:
        """From a metav1.Status; 410 becomes Expired."""
        code = status.get("code")
        code = code if isinstance(code, int) else 0
        reason, details = _text(status.get("reason")), status.get("details")
        listed = details.get("causes") if isinstance(details, dict) else None
        causes = tuple(
            (_text(cause.get("reason")), _text(cause.get("message")))
            for cause in (listed if isinstance(listed, list) else ())
            if isinstance(cause, dict)
        )
        kind = Expired if code == 410 or reason in ("Expired", "Gone") else cls
        return kind(code, reason, _text(status.get("message")), causes=causes)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


class Expired(ApiFailure):
    """The resourceVersion is too old (410): list again."""


class Malformed(ApiFailure):
    """An answer that no API server gives, as from a proxy between: nothing is known."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Malformed", message)


class NotLeader(ApiFailure):
    """The write was not sent: this process is not the leader (any more)."""

    def __init__(self) -> None:
        super().__init__(0, "NotLeader", "the write was not sent: this process is not the leader")


class Failure(Exception):
    """The command cannot be carried out; `code` is the exit status."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
