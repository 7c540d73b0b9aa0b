"""What an error of a model server means: whose fault it is, and what that does to the message."""

from __future__ import annotations

import pytest

from selfheal_worker import retries
from selfheal_worker.model.errors import (
    ContentFilteredError,
    ModelAccessError,
    ModelUnavailableError,
    OverloadedError,
    RefusedTextError,
    TextTooLongError,
    TransientError,
)
from selfheal_worker.model.failure_classes import Refusal, explain_refusal
from selfheal_worker.model.rate_limit_headers import LONGEST_PAUSE, pause_asked
from selfheal_worker.retries import DeadLetter, Requeue, Retry

NOW = 1_790_000_000.0


def _code(code: str) -> object:
    return {"error": {"message": "secret text", "type": "invalid_request_error", "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, None, OverloadedError),
        (503, None, OverloadedError),
        (529, None, OverloadedError),
        (500, None, TransientError),
        (408, None, TransientError),
        (502, None, ModelUnavailableError),
        (504, None, ModelUnavailableError),
        (401, None, ModelAccessError),
        (404, None, ModelUnavailableError),
        (403, None, TransientError),
        (403, _code("invalid_api_key"), ModelAccessError),
        (429, _code("insufficient_quota"), ModelAccessError),
        (400, None, RefusedTextError),
        (422, b'{"detail": "secret text"}', RefusedTextError),
        (413, None, TextTooLongError),
        (400, _code("context_length_exceeded"), TextTooLongError),
        (400, "the request exceeds the available context size, try to increase", TextTooLongError),
        (400, '{"message": "This model\'s maximum context length is 4096"}', TextTooLongError),
        (429, {"error": "your requests exceed the token limit of a minute"}, OverloadedError),
        (429, {"error": "exceeds the token limit"}, OverloadedError),
        (400, {"error": "input is too long for this model"}, TextTooLongError),
        (400, {"error": "The text is too long"}, TextTooLongError),
        (400, {"error": "prompt exceeds the maximum length of 4096"}, TextTooLongError),
        (400, {"error": {"message": "Input exceeds token limit"}}, TextTooLongError),
        (422, {"detail": [{"type": "string_too_long", "loc": ["body", 0]}]}, TextTooLongError),
        (422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 4096"}, TextTooLongError),
        (400, _code("content_filter"), ContentFilteredError),
        (
            400,
            {"error": {"innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            ContentFilteredError,
        ),
        (403, {"error": "Your input was flagged by the moderation"}, ContentFilteredError),
    ],
)
def test_the_class_of_a_refusal(status: int, body: object, kind: type[Exception]) -> None:
    error = explain_refusal(Refusal(status, "http://h", "m", None, body))
    assert type(error) is kind
    assert "secret text" not in str(error)


OVERLOADS: list[object] = [
    _code("rate_limit_exceeded"),
    {"error": {"type": "rate_limit_error"}},
    {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    {"error": {"code": 429, "message": "Provider returned error"}},
    {"error": {"code": "429", "message": "Requests have exceeded the call rate limit"}},
    {"error": {"status": "RESOURCE_EXHAUSTED"}},
    {"__type": "ThrottlingException", "message": "Too many requests"},
    {"error": {"code": "RateLimitReached"}},
]


@pytest.mark.parametrize("status", [400, 403, 404, 408, 409, 422, 424, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", OVERLOADS)
def test_an_overload_is_known_by_its_code_whatever_the_status(status: int, body: object) -> None:
    assert type(explain_refusal(Refusal(status, "http://h", "m", None, body))) is OverloadedError


@pytest.mark.parametrize("status", [400, 413, 422, 429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (_code("context_length_exceeded"), TextTooLongError),
        ("litellm.ContextWindowExceededError: prompt is too long", TextTooLongError),
        ({"error": {"message": "This model's maximum context length is 4096"}}, TextTooLongError),
        (_code("content_filter"), ContentFilteredError),
    ],
)
def test_what_is_reported_of_the_text_counts_before_a_gateways_status(
    status: int, body: object, kind: type[Exception]
) -> None:
    error = explain_refusal(Refusal(status, "http://h", "m", None, body))
    assert isinstance(error, TextTooLongError if status == 413 else kind)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "no model 'm', or nothing at this path .* if it is Ollama, pull it there first"),
        ({"error": "on purpose"}, "no model 'm', or nothing at this path"),
        (
            {"error": {"message": "Invalid URL (POST /chat/completions)"}},
            "has nothing at this path",
        ),
        ({"error": "model 'm' not found, try pulling it first"}, "pull it there first"),
        ({"error": "model 'm' not found"}, "pull it there first"),
        (_code("model_not_found"), r"is not on http://h \(404\), or this key may not use it"),
        (_code("DeploymentNotFound"), "or this key may not use it"),
        ({"message": "The model `m` does not exist."}, "or this key may not use it"),
        ({"error": {"message": "No endpoints found for m."}}, "or this key may not use it"),
        ({"detail": "Not Found"}, r"has nothing at this path \(404\)"),
        ("404 page not found", "has nothing at this path"),
        ("<html><h1>404 Not Found</h1>nginx</html>", "has nothing at this path"),
    ],
)
def test_a_404_says_what_is_not_there(body: object, said: str) -> None:
    error = explain_refusal(Refusal(404, "http://h", "m", None, body))
    assert type(error) is ModelUnavailableError
    with pytest.raises(ModelUnavailableError, match=said):
        raise error


def test_any_server_error_with_a_pause_is_an_overload() -> None:
    for status in (500, 502, 503, 504, 529):
        error = explain_refusal(Refusal(status, "http://h", "m", 7.0))
        assert isinstance(error, OverloadedError)
        assert error.retry_after == 7.0


@pytest.mark.parametrize("attempts", [0, 4, 100])
def test_an_overload_counts_no_attempt_and_makes_no_dead_letter(attempts: int) -> None:
    def after(*, away: bool) -> retries.Decision:
        return retries.decide(
            OverloadedError("429"), attempts=attempts, max_attempts=5, delays=(1,), model_away=away
        )

    assert after(away=False) == Retry(1, attempts)
    assert after(away=True) == Requeue()


@pytest.mark.parametrize("kind", [RefusedTextError, TextTooLongError, ContentFilteredError])
def test_a_refused_text_is_a_dead_letter_with_its_reason(kind: type[RefusedTextError]) -> None:
    found = retries.decide(kind("x"), attempts=0, max_attempts=5, delays=(1,), model_away=True)
    assert found == DeadLetter(kind.reason, kind.__name__, 1)


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "20s"}, None),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW) + 30)}, 30.0),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW + 30) * 1000)}, 30.0),
        ({"retry-after": "inf"}, LONGEST_PAUSE),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_the_pause_that_headers_ask_for(headers: dict[str, str], pause: float | None) -> None:
    found = pause_asked(headers, NOW, refused=True)
    assert found == (None if pause is None else pytest.approx(pause))
