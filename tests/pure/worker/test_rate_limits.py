"""The forms in which servers say how long they want to be left alone."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_worker.model.durations import LONGEST_PAUSE, pause_of
from selfheal_worker.model.errors import OverloadedError
from selfheal_worker.model.failure_classes import Refusal, explain_refusal
from selfheal_worker.model.rate_limit_bodies import LONGEST_BODY_PAUSE
from selfheal_worker.model.rate_limit_headers import pause_asked

NOW = 1_790_000_000.0  # Mon, 21 Sep 2026 14:13:20 GMT
PAUSES = {
    "30": 30.0,
    "0.5": 0.5,
    "1m 30s": 90.0,
    "1m30s": 90.0,
    "1h0m0s": 3600.0,
    "6m0.5s": 360.5,
    "20ms": 0.02,
    "500µs": 0.0005,
    "30 s": 30.0,
    "30 seconds": 30.0,
    "2 minutes": 120.0,
    "1 minute and 5 seconds": 65.0,
    "1 hour": 3600.0,
    "1M30S": 90.0,
    '"30"': 30.0,
    "PT30S": 30.0,
    "PT1M30.5S": 90.5,
    "P1D": LONGEST_PAUSE,
    "00:01:30": 90.0,
    "01:30": 90.0,
    "Mon, 21 Sep 2026 14:13:50 GMT": 30.0,
    "Monday, 21-Sep-26 14:13:50 GMT": 30.0,
    "Mon Sep 21 14:13:50 2026": 30.0,
    "2026-09-21T14:13:50Z": 30.0,
    "2026-09-21T14:13:50.123456Z": 30.123456,
    "2026-09-21T16:13:50+02:00": 30.0,
    "2026-09-21 14:13:50": 30.0,
    f"{NOW + 30:.0f}": 30.0,
    f"{NOW + 30:.3f}": 30.0,
    f"{(NOW + 30) * 1e3:.0f}": 30.0,
    f"{(NOW + 30) * 1e6:.0f}": 30.0,
    f"{(NOW + 30) * 1e9:.0f}": 30.0,
    "5, 30": 30.0,
    # Absurd, and bounded.
    "-5": 0.0,
    "315360000": LONGEST_PAUSE,
    "1e300": LONGEST_PAUSE,
    "inf": LONGEST_PAUSE,
    "3650d": LONGEST_PAUSE,
    "Thu, 01 Jan 1970 00:00:00 GMT": 0.0,
    "Fri, 31 Dec 9999 23:59:59 GMT": LONGEST_PAUSE,
    "0001-01-01T00:00:00Z": 0.0,
    "1000000000": 0.0,
}
NO_PAUSES = [
    *("", " ", "nan", "soon", "30 apples", "s", "1m 30", "m30s", "-5s", "5s ago", "P", "PT", "1_0"),
    *(
        "PT..S",
        "1:2:3:4",
        "Mon, 99 Foo 2026",
        "2026-99-99",
        "5, soon",
        "5s" * 80,
        "9" * 400,
        "\x00",
    ),
]


@pytest.mark.parametrize(("said", "pause"), PAUSES.items())
def test_a_time_in_each_form(said: str, pause: float) -> None:
    assert pause_of(said, NOW) == pytest.approx(pause, abs=2e-3)
    assert pause_asked({"Retry-After": said}, NOW, refused=True) == pytest.approx(pause, abs=2e-3)
    if "," not in said:
        headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": said}
        for refused in (True, False):
            assert pause_asked(headers, NOW, refused=refused) == pytest.approx(pause, abs=2e-3)


@pytest.mark.parametrize("said", NO_PAUSES)
def test_what_is_no_time_says_nothing(said: str) -> None:
    assert pause_of(said, NOW) is None
    assert pause_asked({"Retry-After": said}, NOW, refused=True) is None


@given(st.text(max_size=60) | st.from_regex(r"[0-9a-zµ:.,; PTZ+-]{0,40}"))
def test_whatever_a_server_asks_for_is_bounded(said: str) -> None:
    for found in (
        pause_of(said, NOW),
        pause_asked({"ratelimit": said}, NOW, refused=True),
        pause_asked({"x-ratelimit-remaining": "0", "x-ratelimit-reset": said}, NOW, refused=False),
    ):
        assert found is None or 0.0 <= found <= LONGEST_PAUSE


HEADERS: list[tuple[dict[str, str], float | None]] = [
    ({"retry-after-ms": "250"}, 0.25),
    ({"x-ms-retry-after-ms": "2500", "retry-after": "9"}, 2.5),
    ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
    ({"retry-after-ms": "-1"}, 0.0),
    ({"x-retry-after": "9"}, 9.0),
    ({"RateLimit": '"default";r=0;t=30'}, 30.0),
    ({"RateLimit": "default;r=0;t=30"}, 30.0),
    ({"RateLimit": '"default";t=30;r=0'}, 30.0),
    ({"RateLimit": '"default"; r=0; t=30; pk=:cHM=:'}, 30.0),
    ({"RateLimit": '"burst";r=0;t=5, "daily";r=10;t=3600'}, 5.0),
    ({"RateLimit": '"burst";r=0;t=5, "daily";r=0;t=1800'}, 1800.0),
    ({"RateLimit": '"a, b;r=0;t=99";r=3;t=5'}, None),
    ({"RateLimit": '"default";r=1;t=30'}, None),
    ({"RateLimit": '"default";r=0'}, None),
    ({"RateLimit": "limit=100, remaining=0, reset=30"}, 30.0),
    ({"RateLimit": "limit=100,remaining=0,reset=30"}, 30.0),
    ({"RateLimit": "limit=100;w=60, remaining=0, reset=30"}, 30.0),
    ({"RateLimit": "limit=100, remaining=1, reset=30"}, None),
    ({"RateLimit": "limit=100, remaining=0"}, None),
    ({"RateLimit": "r=0;t=30"}, 30.0),
    ({"RateLimit": "r=0, t=30"}, 30.0),
    ({"RateLimit": '"default";r=0;t=-5'}, 0.0),
    ({"RateLimit": '"default";r=0;t=315360000'}, LONGEST_PAUSE),
    ({"RateLimit": '";;;,,,==="'}, None),
    ({"RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, 30.0),
    ({"X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": "30"}, 30.0),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "1.5"}, 1.5),
    ({"X-RateLimit-Remaining-Minute": "0", "X-RateLimit-Reset": "12"}, 12.0),
    ({"x-ratelimit-remaining-tokens-minute": "0", "x-ratelimit-reset-tokens-minute": "12"}, 12.0),
    ({"ratelimitbysize-remaining": "0", "ratelimitbysize-reset": "12"}, 12.0),
    ({"anthropic-ratelimit-unified-5h-remaining": "x"}, None),
    (
        {
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": "2026-09-21T14:13:50Z",
            "anthropic-ratelimit-requests-remaining": "7",
            "anthropic-ratelimit-requests-reset": "2026-09-21T15:13:50Z",
        },
        30.0,
    ),
]


@pytest.mark.parametrize(("headers", "pause"), HEADERS)
def test_a_quota_in_each_form(headers: dict[str, str], pause: float | None) -> None:
    for names in (str, str.lower, str.upper):
        found = pause_asked({names(k): v for k, v in headers.items()}, NOW, refused=True)
        assert found == (None if pause is None else pytest.approx(pause))


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"X-RateLimit-Reset": f"{NOW + 30:.0f}"}, 30.0),
        ({"X-RateLimit-Reset": f"{(NOW + 30) * 1000:.0f}"}, 30.0),
        ({"X-RateLimit-Reset": "30"}, 30.0),
        ({"RateLimit-Reset": "30"}, 30.0),
        ({"x-ratelimit-reset-requests": "5s", "x-ratelimit-reset-tokens": "1m 30s"}, 90.0),
        ({"X-RateLimit-Reset": "30", "Retry-After": "2"}, 2.0),
        ({"X-RateLimit-Reset": "30", "X-RateLimit-Remaining": "5"}, None),
        ({"X-RateLimit-Reset": "soon"}, None),
    ],
)
def test_a_reset_alone_counts_where_the_server_has_too_many_calls(
    headers: dict[str, str], pause: float | None
) -> None:
    found = pause_asked(headers, NOW, refused=True, overloaded=True)
    assert found == (None if pause is None else pytest.approx(pause))
    if "Retry-After" not in headers:
        assert pause_asked(headers, NOW, refused=True) is None


def test_retry_after_is_of_errors_alone() -> None:
    assert pause_asked({"retry-after": "9", "retry-after-ms": "9"}, NOW, refused=False) is None


def test_a_header_of_megabytes_is_read_in_no_time() -> None:
    long = '"default";r=0;t=30, ' * 200_000
    assert pause_asked({"ratelimit": long}, NOW, refused=True) == 30.0


BODIES: list[tuple[object, float | None]] = [
    (
        {
            "error": {
                "code": 429,
                "status": "RESOURCE_EXHAUSTED",
                "details": [
                    {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45.8s"},
                ],
            }
        },
        45.8,
    ),
    ([{"error": {"details": [{"retryDelay": "39s"}]}}], 39.0),
    ({"error": {"message": "Please try again in 1.242s. Visit"}}, 1.242),
    ({"error": {"message": "Please try again in 6m0s."}}, LONGEST_BODY_PAUSE),
    ({"error": {"message": "Please retry after 6 seconds."}}, 6.0),
    ({"message": "Try again in 1m 5s"}, 65.0),
    ("rate limited, retry in 20ms", 0.02),
    ({"retry_after_ms": 250}, 0.25),
    ({"retry_after": 7}, 7.0),
    ({"retry_after": "nan"}, None),
    ({"retry_after": True}, None),
    ({"retry_after": math.inf}, LONGEST_BODY_PAUSE),
    ({"error": {"message": "slow down"}}, None),
    ("[" * 100_000, None),
    (None, None),
]


@pytest.mark.parametrize(("body", "pause"), BODIES)
@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_pause_in_the_body_of_a_refusal(body: object, pause: float | None, status: int) -> None:
    for form in (body, json.dumps(body), json.dumps(body).encode()):
        error = explain_refusal(Refusal(status, "http://h", "m", None, form), NOW)
        assert isinstance(error, OverloadedError)
        assert error.retry_after == (None if pause is None else pytest.approx(pause))
    assert explain_refusal(Refusal(status, "http://h", "m", 7.0, body), NOW).retry_after == 7.0  # type: ignore[attr-defined]
