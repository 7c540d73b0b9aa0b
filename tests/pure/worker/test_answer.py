from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_worker.task import answer, task_file
from selfheal_worker.task.answer import InvalidAnswerError, ValidatedAnswer

TASK = task_file.load()
PROPERTIES = TASK.schema["properties"]
EMOTIONS = PROPERTIES["primary_emotion"]["enum"]
SENTIMENTS = PROPERTIES["sentiment"]["enum"]
SCHEMA = {**TASK.schema, "additionalProperties": False, "required": list(PROPERTIES)}


def check(content: Any, text: str) -> ValidatedAnswer:
    return answer.check(content, text, TASK)


TEXT = "The PARCEL came two weeks late. I am furious!"
GOOD = {
    "primary_emotion": "Anger",
    "sentiment": "Negative",
    "confidence_score": 0.9,
    "key_phrases": ["two weeks late"],
}


def test_a_good_answer_stays_as_it_is() -> None:
    assert check(GOOD, TEXT).fields() == GOOD
    assert check(json.dumps(GOOD), TEXT).fields() == GOOD


@pytest.mark.parametrize(
    ("name", "said", "meant"),
    [
        ("primary_emotion", "anger", "Anger"),
        ("primary_emotion", " FURIOUS. ", "Anger"),
        ("primary_emotion", "happiness", "Joy"),
        ("primary_emotion", "anxious", "Fear"),
        ("primary_emotion", "none", "Neutral"),
        ("sentiment", "NEG", "Negative"),
        ("sentiment", "mixed", "Neutral"),
        ("confidence_score", "85%", 0.85),
        ("confidence_score", "0.85", 0.85),
        ("confidence_score", 85, 0.85),
        ("confidence_score", 1, 1.0),
        ("confidence_score", 0, 0.0),
        ("confidence_score", "100 %", 1.0),
        ("key_phrases", ["parcel"], ["PARCEL"]),
        ("key_phrases", ["two weeks late", "two weeks late"], ["two weeks late"]),
        ("key_phrases", ["not there", "", "  ", 5, None], []),
        ("key_phrases", "two weeks late", []),
        ("key_phrases", None, []),
        ("key_phrases", [letter for letter in TEXT if letter != " "], None),
    ],
)
def test_a_near_answer_is_repaired(name: str, said: object, meant: object) -> None:
    fields = check(GOOD | {name: said}, TEXT).fields()
    if meant is not None:
        assert fields[name] == meant
    jsonschema.validate(fields, SCHEMA)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("primary_emotion", "Hunger"),
        ("primary_emotion", None),
        ("primary_emotion", ["Joy"]),
        ("primary_emotion", "Joy or Sadness"),
        ("sentiment", ""),
        ("sentiment", 1),
        ("confidence_score", None),
        ("confidence_score", True),
        ("confidence_score", "high"),
        ("confidence_score", -0.1),
        ("confidence_score", 1.7),
        ("confidence_score", 5.0),
        ("confidence_score", "150%"),
        ("confidence_score", 101),
        ("confidence_score", float("nan")),
        ("confidence_score", float("inf")),
        pytest.param("confidence_score", 10**400, id="huge"),
    ],
)
def test_refused_without_quoting(name: str, said: object) -> None:
    with pytest.raises(InvalidAnswerError) as caught:
        check(GOOD | {name: said}, TEXT)
    assert str(caught.value).startswith(name)
    assert "Hunger" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "```json\n{}\n```",
        "Sure! Here it is: {} Hope that helps.",
        "\n {} ",
    ],
)
def test_talk_around_the_json_is_left_out(content: str) -> None:
    assert check(content.replace("{}", json.dumps(GOOD)), TEXT).values["primary_emotion"] == "Anger"


@pytest.mark.parametrize(
    "content", ["", "Anger", "{", "}{", '{"primary_emotion": "An', "[1]", "{" * 50_000 + "}"]
)
def test_no_json_is_refused(content: str) -> None:
    with pytest.raises(InvalidAnswerError):
        check(content, TEXT)


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {
            "primary_emotion": st.sampled_from([*EMOTIONS, "joy", "x"]) | anything,
            "sentiment": st.sampled_from([*SENTIMENTS, "neg"]) | anything,
            "confidence_score": st.floats() | st.integers() | anything,
            "key_phrases": st.lists(st.text()) | anything,
        }
    ),
    st.text(min_size=1),
)
def test_whatever_a_model_says_the_result_fits_the_schema_or_is_refused(
    fields: dict[str, Any], text: str
) -> None:
    try:
        said = check(fields, text)
    except InvalidAnswerError:
        return
    jsonschema.validate(said.fields(), SCHEMA)
    assert all(phrase in text for phrase in said.values["key_phrases"])


@given(st.text(), st.text(min_size=1))
def test_any_talk_is_an_answer_or_refused(content: str, text: str) -> None:
    with pytest.raises(InvalidAnswerError):
        check(content + '{"primary_emotion": "Rage against"}', text)
