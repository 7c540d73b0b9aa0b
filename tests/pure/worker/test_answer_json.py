"""The answer's object is found in whatever a model writes around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_worker.task import answer as validated
from selfheal_worker.task import answer_json, task_file
from selfheal_worker.task.answer import InvalidAnswerError
from selfheal_worker.task.answer_json import Wanted

TASK = task_file.load()
NAMES = frozenset(one.name for one in TASK.fields)
WANTED = Wanted(NAMES, NAMES - {"key_phrases"})
TEXT = "The parcel came late {really}."
GOOD = {
    "primary_emotion": "Anger",
    "sentiment": "Negative",
    "confidence_score": 0.9,
    "key_phrases": ["came late"],
}
OTHER = GOOD | {"primary_emotion": "Joy", "sentiment": "Positive"}
SAID = json.dumps(GOOD)
DRAFT = json.dumps(OTHER)


def found(content: str) -> Any:
    return validated.check(content, TEXT, TASK).fields()


THOUGHTS = [
    ("<think>", "</think>"),
    ("<THINK>\n", "\n</THINK>\n\n"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<thought>", "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>",
    ),
    (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>commentary to=functions.emotion "
        "<|constrain|>json<|message|>",
    ),
    ("analysis", "assistantfinal"),
]
WITHIN = [
    "hm, {braces} and { more",
    f"I could say {DRAFT}",
    f"```json\n{DRAFT}\n```",
    'the mark "</think>" is data',
    "{" * 300,
]


@pytest.mark.parametrize(("begin", "end"), THOUGHTS, ids=[end.strip() for _, end in THOUGHTS])
@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.parametrize("opened", [True, False], ids=["both marks", "the end alone"])
def test_thoughts_are_no_answer(begin: str, end: str, within: str, opened: bool) -> None:
    assert found(f"{begin if opened else ''}{within}{end}{SAID}") == GOOD
    assert found(f"{begin if opened else ''}{within}{end}Sure:\n```json\n{SAID}\n```") == GOOD


@pytest.mark.parametrize(("begin", "end"), THOUGHTS[:-1], ids=[end for _, end in THOUGHTS[:-1]])
def test_a_draft_in_thoughts_is_never_the_answer(begin: str, end: str) -> None:
    for content in (f"{begin}maybe {DRAFT}", f"{begin}maybe {DRAFT}{end}I cannot say."):
        with pytest.raises(InvalidAnswerError):
            found(content)


@pytest.mark.parametrize(
    "content",
    [
        f"[{SAID}]",
        f"[{DRAFT}, {SAID}]",
        f"{DRAFT}\n{SAID}",
        f"First {DRAFT}, no: {SAID}. Done.",
        f'{SAID}\n{{"note": "none"}}',
        f'{SAID} for instance {{"sentiment": "Negative"}}',
        f"{SAID} I hope that {{this}} helps }}",
        f"{{not json}} {SAID}",
        f"{{{SAID}}}",
        f"}} {SAID} {{",
        json.dumps(SAID),
        json.dumps(json.dumps(SAID)),
        json.dumps(f"[{SAID}]"),
        json.dumps(json.dumps(GOOD, indent=2)),
        f"```json\n{json.dumps(SAID)}\n```",
        f"Here: {json.dumps(json.dumps(GOOD, indent=1))} .",
        json.dumps({"answer": GOOD}),
        json.dumps({"answer": SAID}),
        json.dumps({"name": "emotion", "arguments": GOOD}),
        json.dumps({"name": "emotion", "arguments": SAID}),
        json.dumps([{"type": "function", "function": {"name": "emotion", "arguments": SAID}}]),
        f"<tool_call>\n{json.dumps({'name': 'emotion', 'arguments': GOOD})}\n</tool_call>",
        f"```\n{SAID}\n```\n```python\nprint({{}})\n```",
        f"\ufeff{SAID}",
        json.dumps(GOOD, indent=2).replace("\n", "\r\n"),
    ],
)
def test_found_in_what_stands_around_it(content: str) -> None:
    assert found(content) == GOOD


@pytest.mark.parametrize(
    "mark",
    [
        "<think>",
        "</think>",
        "[/THINK]",
        "\n<think>",
        "<|channel|>final<|message|>",
        "```",
        "}{",
        "{",
    ],
)
@pytest.mark.parametrize("around", ["{}", "```json\n{}\n```", "Sure: {} .", "<think>a</think>{}"])
def test_a_mark_that_a_phrase_quotes_costs_nothing(mark: str, around: str) -> None:
    answer = GOOD | {"key_phrases": [f"came {mark} late"]}
    text = f"The parcel came {mark} late."
    for content in (json.dumps(answer), json.dumps(answer, indent=1)):
        said = validated.check(around.replace("{}", content), text, TASK)
        assert said.values["primary_emotion"] == "Anger"
        (phrase,) = said.values["key_phrases"]
        assert phrase.startswith("came")


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"primary_emotion": "Anger", "key_phrases": [DRAFT]}),
        json.dumps({"primary_emotion": "Anger", "key_phrases": [DRAFT, "x"]})[:-8],
        json.dumps({"key_phrases": [DRAFT]})[:-2],
        json.dumps({"primary_emotion": "Anger", "key_phrases": [OTHER]}),
    ],
)
def test_an_answer_that_a_phrase_holds_is_not_taken(content: str) -> None:
    """Its sender would choose the labels."""
    with pytest.raises(InvalidAnswerError):
        found(content)


def test_arguments_that_a_client_has_decoded_may_be_wrapped() -> None:
    for wrapped in ({"emotion": GOOD}, {"arguments": SAID}, {"answer": [GOOD]}):
        assert validated.check(wrapped, TEXT, TASK).fields() == GOOD


@pytest.mark.parametrize(
    "hostile",
    [
        "{" * 100_000,
        '{"' * 50_000,
        '{"a":' * 20_000,
        '{"a":[' * 17_000,
        "[" * 100_000,
        '{"a":"' * 16_000,
        '{"a":1,' * 14_000,
        '"{\\"' * 25_000,
        "</think>" * 12_000,
        "<think>" * 14_000,
        "<|channel|>final" * 6_000,
        '{"a":' + "9" * 99_000,
        '{"a":1}' * 14_000,
        "{ " * 50_000,
        "{" + " " * 99_000,
    ],
    ids=lambda hostile: hostile[:12],
)
def test_hostile_replies_cost_a_bounded_number_of_readings(
    hostile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    class Counting(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
            try:
                value, end = super().raw_decode(s, idx)
            except json.JSONDecodeError as error:
                read.append(error.pos - idx)
                raise
            except (RecursionError, ValueError):
                read.append(1000)
                raise
            read.append(end - idx)
            return value, end

    monkeypatch.setattr(answer_json, "_DECODER", Counting())
    with pytest.raises(InvalidAnswerError):
        found(hostile)
    assert len(read) <= 256
    assert sum(read) <= 18 * len(hostile)


words = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
answers = st.fixed_dictionaries(
    {name: st.text(max_size=30) for name in sorted(WANTED.required)}
    | {"key_phrases": st.lists(st.text(max_size=30), max_size=3)}
)


@given(answers, words, words, st.sampled_from(["</think>", "[/THINK]", THOUGHTS[10][1]]))
def test_any_answer_is_found_behind_any_thoughts_and_before_any_talk(
    answer: dict[str, Any], thoughts: str, talk: str, end: str
) -> None:
    # What would be another end, or spoil the first decode, is not of the model's own making.
    talk = talk.replace("{", "").replace("<", "").replace("[", "").replace("◁", "")
    assert answer_json.find(f"{thoughts}{end}{json.dumps(answer)} {talk}", WANTED) == answer


@given(answers, st.integers(0, 3), st.booleans(), st.booleans())
def test_any_answer_is_found_however_often_it_is_encoded(
    answer: dict[str, Any], times: int, listed: bool, ascii_only: bool
) -> None:
    content = json.dumps([answer] if listed else answer, ensure_ascii=ascii_only)
    for _ in range(times):
        content = json.dumps(content, ensure_ascii=ascii_only)
    assert answer_json.find(content, WANTED) == answer


@given(st.text(), values)
def test_whatever_is_read_an_object_or_nothing_comes_of_it(talk: str, value: Any) -> None:
    for content in (talk, json.dumps(value), talk + json.dumps(value)):
        assert isinstance(answer_json.find(content, WANTED), dict | type(None))
