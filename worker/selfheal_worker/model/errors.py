"""How a model can fail."""

from __future__ import annotations


class ModelError(Exception):
    """A call that gave no answer. Its message never contains the analysed text."""


class TransientError(ModelError):
    """This call failed (timeout, 429, 5xx): the message is retried later.

    retry_after is the number of seconds that the server requested, if any.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RefusedTextError(ModelError):
    """The server refuses this text (400, 413, 422); another call would have the same result.

    reason is the dead letter's. The server's message is not quoted: it may contain the text.
    """

    reason = "refused_by_model"


class ContentFilteredError(RefusedTextError):
    """A moderation refused the text."""

    reason = "content_filtered"


class TextTooLongError(RefusedTextError):
    """The text and the prompt do not fit into the model's context, or into the server's quota."""

    reason = "text_too_long"


class OverloadedError(TransientError):
    """The server has no room for this call (429, 503, 529): nothing is counted against the text."""


class BadOutputError(TransientError):
    """The model answered, but not with JSON of the schema: it is retried."""


class ModelUnavailableError(ModelError):
    """The model itself is away (connection refused, model not there): not the message's fault."""


class ModelAccessError(ModelUnavailableError):
    """Key or quota is refused (401, 402, 403): somebody must change something first."""


class ModelConfigError(Exception):
    """The settings of the model are wrong: what is wrong, and what is allowed."""
