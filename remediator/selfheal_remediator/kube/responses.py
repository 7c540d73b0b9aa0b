"""What the API server's answers mean, above all the many ways in which it refuses an eviction.

The bodies are metav1.Status objects; the order of checks follows the API server's
pkg/registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from selfheal_remediator.failures import ApiFailure, Json, Malformed


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Reading `what` out of JSON: where it is not as the API describes it, Malformed says so."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Malformed(f"{what} cannot be read: {error!r}"[:300]) from error


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of the API server; `retry_after` in seconds, None when not given.

    parsed: the body as an object, where somebody has read it already.
    """

    status: int
    body: bytes
    retry_after: float | None = None
    parsed: Json | None = None

    @property
    def ok(self) -> bool:
        """Whether the request was carried out."""
        return 200 <= self.status < 300

    def json(self) -> Json:
        """The body as an object; {} when it is not one."""
        if self.parsed is not None:
            return self.parsed
        return object_from(self.body) or {}

    def failure(self) -> ApiFailure:
        """The refusal as an exception."""
        status = self.json()
        if status.get("kind") != "Status":
            text = self.body.decode("utf-8", "replace").strip()
            status = {"message": " ".join(text.split())[:300]}
        status["code"] = self.status
        failure = ApiFailure.from_status(status)
        failure.retry_after = self.retry_after
        return failure

    @property
    def conflict(self) -> bool:
        """Whether the object is not as the request expects it, see is_conflict."""
        return self.status in (409, 422) and is_conflict(self.failure())

    @property
    def throttled(self) -> bool:
        """429 from the server's own flow control, which throttles this client.

        Its handler (apiserver's pkg/server/filters) answers before anything else reads the
        request: always with Retry-After, and with nothing about an object. A 429 with causes (a
        disruption budget), of an admission plugin or webhook, or of one resource's storage is
        about that one request.
        """
        if self.status != 429 or self.retry_after is None:
            return False
        failure = self.failure()
        about_one = any(words in failure.message for words in _ABOUT_ONE_REQUEST)
        return not failure.causes and not about_one


def object_from(body: bytes) -> Json | None:
    """The JSON object that these bytes are; None when they are anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


#: How webhooks and admission policies say no, and how the server says that a webhook says nothing.
_DENIED = ("admission webhook", "ValidatingAdmissionPolicy")
_UNHEARD = "failed calling webhook"
_ADMISSION = (*_DENIED, _UNHEARD)
#: 429 of what is no flow control: admission, the EventRateLimit plugin, a cache that fills, and
#: a disruption budget (whose causes a proxy may have dropped).
_ABOUT_ONE_REQUEST = (
    *_ADMISSION,
    "failed to call webhook",
    "limit reached on type",
    "(re)initializing",
    "disruption budget",
)


def is_conflict(failure: ApiFailure) -> bool:
    """Whether the object is not as the request expects it: 409, or a `test` of a JSON patch failed.

    For the latter apiserver's pkg/endpoints/handlers/patch.go answers 422 without a word about
    what. A 422 with causes is of validation, or of a ValidatingAdmissionPolicy
    (pkg/admission/plugin/policy/validating/dispatcher.go); a webhook may choose any code.
    """
    if any(words in failure.message for words in _ADMISSION):
        return False
    return failure.status == 409 or (failure.status == 422 and not failure.causes)


def is_refusal(failure: ApiFailure) -> bool:
    """Whether the request, sent again as it is, is refused again: by rights, validation or
    admission. A webhook that cannot be called refuses nothing: it may be back in a moment."""
    if _UNHEARD in failure.message:
        return False
    denied = any(words in failure.message for words in _DENIED)
    by_status = failure.status in (400, 401, 403, 405, 413, 422)
    return denied or (by_status and not is_conflict(failure))


class Outcome(Enum):
    """What became of an eviction request; the value is the bounded label for metrics."""

    ACCEPTED = "accepted"
    GONE = "gone"
    REPLACED = "replaced"
    BUDGET = "pdb"
    PROCESSING = "pdb-processing"
    SEVERAL_BUDGETS = "multi-pdb"
    THROTTLED = "throttled"
    NAMESPACE = "namespace-terminating"
    WEBHOOK = "webhook"
    FORBIDDEN = "forbidden"
    INVALID = "invalid"
    UNAVAILABLE = "unavailable"

    @property
    def over(self) -> bool:
        """Whether the pod is gone, or on its way."""
        return self in (Outcome.ACCEPTED, Outcome.GONE, Outcome.REPLACED)


@dataclass(frozen=True, slots=True)
class EvictionResult:
    """An eviction's outcome, with the server's message and when to retry (seconds)."""

    outcome: Outcome
    message: str = ""
    retry_after: float | None = None


_SHORTAGE = re.compile(
    r"The disruption budget (?P<name>\S+) needs (?P<needs>\d+) healthy pods"
    r" and has (?P<has>\d+) currently"
)
#: Servers newer than 1.34, where the numbers are not why: `because it failed sync: …`, `: …`.
_CLOSED = re.compile(
    r"The disruption budget (?P<name>\S+) does not allow evicting pods currently(?P<why>.{0,200})"
)


def budget_refusal(message: str) -> str | None:
    """`name needs N, has M`, or `name does not allow evictions` and why, from the server's text;
    None when it says neither."""
    if found := _SHORTAGE.search(message):
        return f"{found['name']} needs {found['needs']}, has {found['has']}"
    if found := _CLOSED.search(message):
        return f"{found['name']} does not allow evictions{found['why']}"
    return None


def classify_eviction(answer: Answer) -> EvictionResult:
    """The outcome of POST pods/eviction from the server's answer."""
    if answer.ok:
        return EvictionResult(Outcome.ACCEPTED)
    failure = answer.failure()
    text = "; ".join([failure.message, *(message for _, message in failure.causes)])
    outcome = _refusal(failure, text)
    return EvictionResult(outcome, text, answer.retry_after)


def _refusal(failure: ApiFailure, text: str) -> Outcome:
    if any(word in text for word in _ADMISSION):
        return Outcome.WEBHOOK
    reasons = {reason for reason, _ in failure.causes}
    match failure.status:
        case 404:
            outcome = Outcome.GONE
        case 409:
            # The uid precondition failed: the name belongs to another pod now.
            outcome = Outcome.REPLACED if "UID" in text else Outcome.UNAVAILABLE
        case 429:
            outcome = _too_many(reasons, text)
        case 401 | 403:
            outcome = _forbidden(reasons, text)
        case 400 | 422:
            outcome = Outcome.INVALID
        case 500 if "more than one PodDisruptionBudget" in text:
            outcome = Outcome.SEVERAL_BUDGETS
        case _:
            outcome = Outcome.UNAVAILABLE
    return outcome


def _too_many(reasons: set[str], text: str) -> Outcome:
    if "DisruptionBudget" not in reasons:
        return Outcome.THROTTLED
    return Outcome.PROCESSING if "still being processed" in text else Outcome.BUDGET


def _forbidden(reasons: set[str], text: str) -> Outcome:
    if "NamespaceTerminating" in reasons:
        return Outcome.NAMESPACE
    # Too many pods are on their way already (the budget's DisruptedPods map), or it is negative.
    # A server as old as 1.34 names no cause.
    by_words = "isruption" in text and ("negative" in text or "too big" in text)
    if "DisruptionBudget" in reasons or by_words:
        return Outcome.PROCESSING
    return Outcome.FORBIDDEN
