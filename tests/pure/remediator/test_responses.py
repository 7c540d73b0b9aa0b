"""Eviction answers, captured from a real API server 1.34, are distinguished."""

import json
from pathlib import Path
from typing import Any

import pytest

from selfheal_remediator.failures import Expired
from selfheal_remediator.kube.responses import (
    Answer,
    Outcome,
    budget_refusal,
    classify_eviction,
    is_conflict,
    is_refusal,
)

CASES = json.loads(Path(__file__).with_name("eviction_answers.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_each_answer_has_its_outcome(case: dict[str, Any]) -> None:
    body = case["body"]
    raw = body if isinstance(body, str) else json.dumps(body)
    answer = Answer(case["status"], raw.encode(), case["retryAfter"])
    result = classify_eviction(answer)
    assert result.outcome is Outcome(case["outcome"])
    assert result.retry_after == case["retryAfter"]
    # Only flow control slows the whole client down, never a disruption budget.
    assert answer.throttled == (case["outcome"] == "throttled")


@pytest.mark.parametrize(
    "message",
    [
        "pdb disruptions allowed is negative",
        "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
    ],
)
def test_a_budget_with_too_much_under_way_is_waited_for(message: str) -> None:
    text = f'poddisruptionbudgets.policy "b" is forbidden: {message}'
    body = json.dumps({"kind": "Status", "code": 403, "reason": "Forbidden", "message": text})
    assert classify_eviction(Answer(403, body.encode())).outcome is Outcome.PROCESSING


CLOSED = "The disruption budget b does not allow evicting pods currently"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("pdb disruptions allowed is negative", "pdb disruptions allowed is negative"),
        ("DisruptedPods map too big", "too many pending evictions"),
        ("in other words", "in other words"),
    ],
)
def test_a_server_that_names_the_cause_of_a_403_may_say_it_in_any_words(
    message: str, words: str
) -> None:
    cause = {"reason": "DisruptionBudget", "message": f"{CLOSED}: {words}"}
    answer = refused(403, "Forbidden", f'poddisruptionbudget "b" is forbidden: {message}', cause)
    result = classify_eviction(answer)
    assert result.outcome is Outcome.PROCESSING
    assert budget_refusal(result.message) == f"b does not allow evictions: {words}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # All versions.
        (
            "The disruption budget a-pdb needs 3 healthy pods and has 2 currently",
            "a-pdb needs 3, has 2",
        ),
        # Newer ones, where the controller could not compute the numbers or they are not why.
        (
            f"{CLOSED} because it failed sync: found no controllers",
            "b does not allow evictions because it failed sync: found no controllers",
        ),
        (f"{CLOSED} (Odd): no reason", "b does not allow evictions (Odd): no reason"),
        (CLOSED, "b does not allow evictions"),
        ("something else", None),
    ],
)
def test_why_a_budget_refuses_is_read_from_the_servers_text(text: str, said: str | None) -> None:
    assert budget_refusal(text) == said
    cause = {"reason": "DisruptionBudget", "message": text}
    answer = refused(429, "TooManyRequests", "Cannot evict pod", cause)
    assert classify_eviction(answer).outcome is Outcome.BUDGET


@pytest.mark.parametrize("status", [{"code": 410}, {"reason": "Expired"}, {"reason": "Gone"}])
def test_gone_is_expired_however_it_arrives(status: dict[str, Any]) -> None:
    assert isinstance(Expired.from_status(status), Expired)


VAP = "ValidatingAdmissionPolicy 'vap' with binding 'vap' denied request: no taints"
WEBHOOK = 'admission webhook "guard.example.com" denied the request: no taints'
UNHEARD = 'Internal error occurred: failed calling webhook "guard.example.com": connection refused'
MODIFIED = (
    'Operation cannot be fulfilled on nodes "n": the object has been modified; please apply your '
    "changes to the latest version and try again"
)


def refused(code: int, reason: str, message: str, *causes: dict[str, str]) -> Answer:
    details = {"details": {"name": "n", "kind": "nodes", "causes": list(causes)}} if causes else {}
    body = {"kind": "Status", "code": code, "reason": reason, "message": message, **details}
    return Answer(code, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("answer", "conflict", "refusal"),
    [
        # A `test` of a JSON patch that failed; the storage's optimistic lock.
        (
            refused(
                *(422, "Invalid"), "the server rejected our request due to an error in our request"
            ),
            True,
            False,
        ),
        (refused(409, "Conflict", MODIFIED), True, False),
        # A policy, by its default reason and by another one; a webhook, with codes of its choice.
        (refused(422, "Invalid", f'nodes "n" is forbidden: {VAP}', {"message": VAP}), False, True),
        (
            refused(403, "Forbidden", f'nodes "n" is forbidden: {VAP}', {"message": VAP}),
            False,
            True,
        ),
        *[(refused(code, "", WEBHOOK), False, True) for code in (400, 403, 409, 422, 429)],
        # Validation; rights.
        (
            refused(
                *(422, "Invalid", 'Node "n" is invalid: spec.taints[0].key: Invalid value: "a"'),
                {"reason": "FieldValueInvalid", "message": "", "field": "spec.taints[0].key"},
            ),
            False,
            True,
        ),
        (refused(403, "Forbidden", 'nodes "n" is forbidden: User "u" cannot patch'), False, True),
        # What passes by itself; a webhook that cannot be called, too.
        (refused(500, "InternalError", UNHEARD), False, False),
        *[(refused(code, "", "later"), False, False) for code in (404, 408, 429, 500, 503, 504)],
    ],
)
def test_a_refusal_is_told_from_an_object_that_changed(
    answer: Answer, conflict: bool, refusal: bool
) -> None:
    assert (answer.conflict, is_refusal(answer.failure())) == (conflict, refusal)
    assert is_conflict(answer.failure()) is conflict


def test_an_answer_that_is_not_json_is_quoted() -> None:
    failure = Answer(502, b"<html>\n bad  gateway</html>").failure()
    assert failure.status == 502
    assert failure.message == "<html> bad gateway</html>"
