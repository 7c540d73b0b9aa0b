"""Prose uses the words of Kubernetes and RabbitMQ; these private ones may not come back.

Checked are finished files: pages without their code, values' comments, and in Python docstrings,
comments, texts and identifiers.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: What may not stand in prose -> what to write instead.
OLD = {
    r"h[eo]ld-?down": "stabilization window",
    r"(?:gives?|given|giving|gave) (?:it |them |(?:a|the) node )?back": "uncordon, requeue",
    r"brakes?": "disruption limits",
    r"ill": "unhealthy",
    r"(?:is|are|was|were|be|been|not|stays?) well": "healthy",
    r"well again": "recovered",
    r"rehears\w*": "dry run",
    r"vouch\w*": "trust",
    r"told": "reported, notified",
    r"tells? apart": "distinguish",
    r"look(?:s|ed|ing)? (?:after|at|on|for|into)": "manage, select; evaluate, read",
    r"rivals?": "other remediators",
    r"bur(?:y|ied|ies)": "dead-letter",
    r"verdicts?": "answer",
    r"mend(?:s|ed|ing)?": "fix, repair",
    r"heirs?": "remaining",
    r"in the box": "built-in",
    r"doors?": "adapter",
    r"anew": "again; recreated",
    r"at work": "active",
    r"(?:go|goes|going|went) on": "continue",
    r"as long as": "while; until",
    r"roll-outs?": "rollout",
    r"hands? (?:it |them |messages )?back": "requeue",
    r"engaged?": "reached; limited by",
    r"annotate-only": "observe",
    r"wards?": "policy state",
    r"steer(?:s|ed|ing)?": "update consumer",
    r"weakness(?:es)?": "vulnerability",
    r"poor(?:ly)?": "degraded",
    r"pulses?": "heartbeat",
    r"max_?held(?:_?floor)?": "maxUnavailable, minAllowed",
}
#: What may not be part of an identifier -> what to write instead.
OLD_IN_IDENTIFIERS = {
    r"hold_?down": "stabilization_window",
    r"(?:give|gives|given|giving|gave)_back": "uncordon, requeue",
    r"brakes?": "limits",
    r"ill": "unhealthy",
    r"sick": "unhealthy",
    r"rehears[a-z]*": "dry_run",
    r"vouch[a-z]*": "trusted",
    r"told_apart": "distinguished",
    r"look(?:s|ed|ing)?_(?:after|at|on|through)": "manage; evaluate; read_only",
    r"rivals?": "peers",
    r"bur(?:y|ied|ies)": "dead_letter",
    r"verdicts?": "answer",
    r"mend(?:s|ed|ing)?": "fixed, repair",
    r"heirs?": "remaining",
    r"in_the_box": "built_in",
    r"wish(?:es)?": "action",
    r"intents?": "action",
    r"wards?": "policy_state",
    r"sights?": "observation",
    r"anew": "again, recreated",
    r"at_work": "active, working",
    r"roll_outs?": "rollout",
    r"(?:go|goes|going|went)_on": "continue",
    r"engaged?": "reached",
    r"ask_hold": "check_cordon",
    r"annotate_only": "observe",
    r"pulses?": "heartbeat",
    r"poor(?:ly)?": "degraded",
    r"steer(?:s|ed|ing)?": "update_consumer",
    r"hands?_back": "requeue",
    r"only_look": "passive",
    r"(?:hang_look|look_later)": "check",
    r"(?:requeue|warm_the)_rest": "remaining, others",
    r"doors?": "adapter",
    r"weakness(?:es)?": "vulnerability",
}
#: In modules a lock or a Lease is held.
OLD_IN_PAGES = OLD | {r"h[eo]ld(?:s|ing)?": "cordon; contain; apply"}
#: Code, the targets of links, and a heading of the runbooks that is part of their form.
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`|\]\([^)\s]*\)|^## Look at$", re.MULTILINE | re.DOTALL)

#: Texts of people and of models, and the lists of words themselves.
NOT_OURS = {
    *("tests/pure/test_vocabulary.py", "tests/alerts/test_runbooks.py"),
    *("tests/pure/worker/test_excerpts.py", "tests/pure/worker/test_task_file.py"),
    "tests/pure/worker_builtin/test_classifier.py",
}
PAGES = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "alerts/*.md"),
    *("alerts/runbooks/*.md", "chart/README.md", "chart/templates/NOTES.txt"),
)
MODULES = (
    *("worker/**/*.py", "remediator/**/*.py", "alerts/*.py", "dashboards/*.py"),
    *("ci/**/*.py", "tests/**/*.py"),
)


def _files(*patterns: str) -> list[str]:
    found = {path.relative_to(ROOT).as_posix() for one in patterns for path in ROOT.glob(one)}
    return sorted(found - NOT_OURS)


def _page(path: Path) -> Iterator[str]:
    yield _CODE.sub("", path.read_text(encoding="utf-8"))


def _comments(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        _, begun, comment = line.partition("# ")
        if begun and not comment.startswith("@schema"):
            yield _CODE.sub("", comment)


def _python(path: Path) -> Iterator[str]:
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield _CODE.sub("", token.string)
    for node in ast.walk(ast.parse(source)):
        # A text without a blank is a name.
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield _CODE.sub("", node.value)


def _identifiers(path: Path) -> Iterator[str]:
    """Every name of a module once, as its words with underscores between them."""
    source = path.read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    names = {token.string for token in tokens if token.type == tokenize.NAME}
    for name in sorted(names):
        yield re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _old_names(names: Iterator[str]) -> list[str]:
    old = "|".join(OLD_IN_IDENTIFIERS)
    return [name for name in names if re.search(rf"(?:^|_)(?:{old})(?:_|$)", name)]


def _old_words(texts: Iterator[str], old: Mapping[str, str] = OLD) -> list[str]:
    words = re.compile("|".join(rf"\b(?:{pattern})\b" for pattern in old), re.IGNORECASE)
    found = []
    for text in texts:
        found += [
            f"{match[0]!r} in {text[max(0, match.start() - 40) : match.end() + 40]!r}"
            for match in words.finditer(text)
        ]
    return found


@pytest.mark.parametrize("page", _files(*PAGES))
def test_a_page_has_no_old_word(page: str) -> None:
    assert _old_words(_page(ROOT / page), OLD_IN_PAGES) == []


def test_the_comments_of_the_values_have_no_old_word() -> None:
    comments = _comments(ROOT / "chart/values.yaml")
    assert _old_words(comments, OLD_IN_PAGES) == []


@pytest.mark.parametrize("module", _files(*MODULES))
def test_a_module_has_no_old_word(module: str) -> None:
    assert _old_words(_python(ROOT / module)) == []


@pytest.mark.parametrize("module", _files(*MODULES))
def test_no_identifier_has_an_old_word(module: str) -> None:
    assert _old_names(_identifiers(ROOT / module)) == []


def test_what_is_not_ours_exists() -> None:
    assert {name for name in NOT_OURS if not (ROOT / name).is_file()} == set()


def test_an_old_word_is_found_in_prose_and_not_in_code() -> None:
    assert _old_words(iter(["the node is Well again"])) != []
    code = "it goes\n`goes on` on\n```sh\ngoes on\n```\n"
    assert _old_words(iter([_CODE.sub("", code)])) == []


def test_an_old_word_is_found_in_an_identifier() -> None:
    found = _old_names(iter(["_is_ill", "still_bad", "hold_down", "buried_at", "a_lease_is_held"]))
    assert found == ["_is_ill", "hold_down", "buried_at"]
