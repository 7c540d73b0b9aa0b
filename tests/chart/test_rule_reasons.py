"""A rule's reason that is no regular expression is refused before anything is installed.

Helm knows Go's regular expressions and the remediator takes Python's. What the chart refuses, the
remediator must refuse too; what only Python knows is left to it.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
from pydantic import ValidationError

from selfheal_remediator.config import Config
from tests.chart.rendering import Helm, Rendering

REFUSED = (
    *(
        "[",
        "[]",
        "[a",
        "[z-a]",
        "(",
        "(a",
        ")",
        "a)",
        "a)|(b",
        "a|b)",
        "*",
        "*a",
        "+",
        "?a",
        "(*a)",
    ),
    *("a|*b", "a**", "a??*", "a{2,1}", "a{2}{3}", "Kernel(Oops", "\\", "Oops\\", "a\\\\\\"),
)
#: Valid, or of a kind that the chart cannot tell.
LEFT = (
    *(
        "",
        "Oops",
        "^Oops$",
        "a|b",
        "|",
        "a|",
        "[]a]",
        "a]",
        "a}",
        "a{",
        "a{2}",
        "a{,3}",
        "\\d+",
        "\\.",
    ),
    *(
        "(?i)oops",
        "(?=a)b",
        "(?!a)b",
        "(?<=a)b",
        "(?P<n>a)(?P=n)",
        "(a)\\1",
        "a\\Z",
        "a++",
        "a*+*",
        "a*+",
    ),
    *(
        "(a)?(?(1)b|c)",
        "(?#x)a",
        "(?>a)",
        "(?x) a",
        "(?a)a",
        "a{1001}",
        "a{1,2000}",
        "\\u00e9",
        "\\é",
    ),
    *(
        "[[:word]",
        "[\\b]",
        "\\N{BULLET}",
        "\\x41",
        "\\0",
        "a\\\\",
        "\\ ",
        "\\_",
        "é+",
        "\\z",
        "\\pL",
    ),
)


def _values(*reasons: str) -> dict[str, Any]:
    """A rule for each."""
    rules = [
        {"condition": f"C{number}", "action": "observe", "reason": reason}
        for number, reason in enumerate(reasons)
    ]
    return {
        "nodeProblemDetector": {"enabled": False},
        "remediator": {"config": {"rules": rules}},
    }


def _valid(reason: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            re.compile(reason)
        except re.error:
            return False
    return True


def test_what_is_surely_no_regular_expression_is_refused_by_its_index(
    helm: Helm, helm3: Helm
) -> None:
    for each in (helm, helm3):
        message = each.refusal(values=_values(*REFUSED))
        lines = [line for line in message.splitlines() if "is not a regular expression" in line]
        found = {int(number) for line in lines for number in re.findall(r"rules\[(\d+)\]", line)}
        assert {REFUSED[number] for number in range(len(REFUSED)) if number not in found} == set()
    assert not [reason for reason in REFUSED if _valid(reason)]


def test_what_only_the_remediator_can_tell_is_left_to_it(helm: Helm, helm3: Helm) -> None:
    for each in (helm, helm3):
        each.render(Rendering.of(_values(*LEFT)))


@pytest.mark.parametrize("reason", [*REFUSED, "\\z", "\\pL", "a{99999999999999999999}", "(" * 9000])
def test_the_remediator_says_what_is_wrong_with_it(reason: str) -> None:
    rule = {"condition": "C", "action": "observe", "reason": reason}
    with pytest.raises(ValidationError, match="is not a regular expression"):
        Config.model_validate({"rules": [rule]})
