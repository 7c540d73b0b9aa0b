from __future__ import annotations

import contextlib
import json
import tracemalloc

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from selfheal_worker.message import Message, PoisonError, parse
from selfheal_worker.plain_data import MAX_DEPTH


def read(body: bytes, message_id: str | None = None, limit: int = 1000) -> Message:
    return parse(body, message_id=message_id, max_text_bytes=limit, fresh_id=lambda: "fresh")


REFUSED = [
    (b"", "malformed_json"),
    (b"\x00", "malformed_json"),
    (b"\xff", "malformed_json"),
    ('{"text":"x"}'.encode("utf-16"), "malformed_json"),
    (b'{"text":"x"', "malformed_json"),
    (b'{"text":"x"}}', "malformed_json"),
    (b"{'text':'x'}", "malformed_json"),
    (b'{"text":"x","n":NaN}', "malformed_json"),
    (b'{"text":"x","n":-Infinity}', "malformed_json"),
    (b'{"text":"x","n":' + b"1" * 5000 + b"}", "malformed_json"),
    (b'{"text":"x","n":1e999}', "malformed_json"),
    (b"[]", "not_an_object"),
    (b"7", "not_an_object"),
    (b'"x"', "not_an_object"),
    (b"true", "not_an_object"),
    (b"null", "not_an_object"),
    (b"{}", "missing_text"),
    (b'{"Text":"x"}', "missing_text"),
    (b'{"text":1}', "text_not_a_string"),
    (b'{"text":null}', "text_not_a_string"),
    (b'{"text":["x"]}', "text_not_a_string"),
    (b'{"text":""}', "blank_text"),
    (b'{"text":"  \\t\\r\\n"}', "blank_text"),
    (b'{"text":"\\u0000\\u0000"}', "blank_text"),
    ('{"text":"\u3000\u00a0"}'.encode(), "blank_text"),
    (b'{"text":"' + b"x" * 1001 + b'"}', "text_too_large"),
    (json.dumps({"text": "é" * 501}).encode(), "text_too_large"),
    (b'{"text":"x","id":true}', "bad_id"),
    (b'{"text":"x","id":1.5}', "bad_id"),
    (b'{"text":"x","id":{}}', "bad_id"),
    (b'{"text":"x","id":"\\ud800"}', "bad_id"),
    (json.dumps({"text": "x", "id": "é" * 128}).encode(), "bad_id"),
    (b'{"text":"x","id":' + b"1" * 256 + b"}", "bad_id"),
    (b'{"text":"x","a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "nested_too_deep"),
    (b"[" * 1_000_000, "nested_too_deep"),
    (b'{"a":' * 1_000_000, "nested_too_deep"),
]


@pytest.mark.parametrize(("body", "reason"), REFUSED, ids=lambda value: str(value)[:30])
def test_refused_with_a_reason_and_without_quoting(body: bytes, reason: str) -> None:
    with pytest.raises(PoisonError) as caught:
        read(body)
    assert caught.value.reason == reason
    assert caught.value.error_class
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("body", "message_id", "identity", "generated"),
    [
        (b'{"text":"x","id":"a"}', "m", "a", False),
        (b'{"text":"x","id":0}', "m", 0, False),
        (b'{"text":"x","id":""}', "m", "m", False),
        (b'{"text":"x","id":null}', "m", "m", False),
        (b'{"text":"x"}', "m", "m", False),
        (b'{"text":"x"}', None, "fresh", True),
        (b'{"text":"x"}', "", "fresh", True),
        (json.dumps({"text": "x", "id": "é" * 127}).encode(), None, "é" * 127, False),
    ],
)
def test_the_id(body: bytes, message_id: str | None, identity: str | int, generated: bool) -> None:
    got = read(body, message_id)
    assert (got.id, got.id_generated) == (identity, generated)


def test_the_largest_text_the_deepest_nesting_and_a_bom_are_taken() -> None:
    assert read(json.dumps({"text": "é" * 500}).encode()).text == "é" * 500
    deepest = b'{"text":"x","a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    assert "a" in read(deepest).extra
    assert read(b"\xef\xbb\xbf" + b'{"text":"x"}').text == "x"


def test_brackets_in_strings_are_no_nesting() -> None:
    assert read(json.dumps({"text": '[[[\\"{{{' * 50}).encode()).text


@pytest.mark.parametrize("piece", ["x", "\\n"])
def test_a_large_body_takes_memory_by_its_size(piece: str) -> None:
    """Its brackets are counted before its text is found too large."""
    text = piece * (500_000 // len(piece))
    body = f'{{"text":"{text}","a":[{",".join(["[]"] * MAX_DEPTH)}]}}'.encode()
    tracemalloc.start()
    try:
        with contextlib.suppress(PoisonError):
            read(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(body)


def test_lone_surrogates_become_replacement_characters() -> None:
    got = read(b'{"text":"a\\ud800b","metadata":"\\udfff"}')
    assert got.text == "a\ufffdb"
    json.dumps(got.metadata).encode()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_message_or_poison(body: bytes) -> None:
    with contextlib.suppress(PoisonError):
        got = read(body)
        got.text.encode()
        json.dumps([got.id, got.metadata, got.extra], allow_nan=False).encode()


@given(st.dictionaries(st.text(), json_values, max_size=5), st.text(min_size=1))
def test_nothing_of_a_good_message_is_lost(fields: dict[str, object], text: str) -> None:
    assume(text.replace("\x00", "").strip())
    body = fields | {"text": text, "id": 5}
    got = read(json.dumps(body).encode(), limit=10_000)
    assert got.text == text
    assert got.extra | {"text": text, "id": got.id} | (
        {"metadata": got.metadata} if "metadata" in body else {}
    ) == json.loads(json.dumps(body))


@pytest.mark.parametrize("size", [101, 500])
def test_a_body_above_the_limit_is_refused_before_it_is_decoded(size: int) -> None:
    body = b"\xff" * size
    with pytest.raises(PoisonError) as caught:
        parse(
            body,
            message_id=None,
            max_text_bytes=100,
            max_body_bytes=100,
            fresh_id=lambda: "fresh",
        )
    assert caught.value.reason == "body_too_large"
