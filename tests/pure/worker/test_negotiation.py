"""Which parameter a refusal is about, in the forms that servers have for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from selfheal_worker.model.negotiation import Parameters, refused_parameter, without

_MISTRAL = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}
NOW = Parameters(options=frozenset({"top_p", "n", "user", "top_k"}))


def _openai(said: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": said, "type": "x", "param": param, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "name"),
    [
        (400, _openai("Unsupported: 'max_tokens'. Use 'max_completion_tokens'"), "max_tokens"),
        (400, _openai("Unsupported value", "temperature", "unsupported_value"), "temperature"),
        (400, _openai("`temperature` is deprecated for this model."), "temperature"),
        (400, _openai("Unrecognized request argument supplied: seed"), "seed"),
        (422, {"detail": [_MISTRAL]}, "seed"),
        (422, {"object": "error", "message": {"detail": [_MISTRAL]}}, "seed"),
        (422, {"object": "error", "message": json.dumps({"detail": [_MISTRAL]})}, "seed"),
        (400, {"object": "error", "message": str([_MISTRAL]), "code": 400}, "seed"),
        (400, json.dumps(_openai("does not support parameters: ['seed']")), "seed"),
        (400, _openai("Invalid schema for response_format 'a'"), "response_format"),
        (400, _openai("Failed to initialize samplers: failed to parse grammar"), "response_format"),
        (422, "Failed to deserialize: response_format: missing field `value`", "response_format"),
        (422, "response_format.type `json_schema` is unavailable now", "response_format"),
        (400, "response_format value as json_schema is enabled only for api versions 2024-08-01-"
         "preview and later", "response_format"),
        (400, _openai("Invalid value: 'json_schema'. Supported values are: 'json_object', 'text'"),
         "response_format"),
        (422, {"detail": [{"type": "literal_error", "loc": ["body", "response_format", "type"],
                           "msg": "Input should be 'text' or 'json_object'"}]}, "response_format"),
        (400, {"error": "json: cannot unmarshal object into Go struct field ChatRequest.format of "
               "type string"}, "response_format"),
        (404, _openai("No endpoints found that can handle the requested parameters."),
         "response_format"),
        (400, _openai("Unsupported parameter: 'top_p'", "top_p"), "top_p"),
        (400, _openai("Unknown parameter: top_k"), "top_k"),
        (400, _openai("Unrecognized request argument supplied: n"), "n"),
        # No parameter's fault, or none that is sent.
        (404, _openai("The model m does not exist"), None),
        (400, _openai("The user is unknown, and n may not be what is unsupported"), None),
        (400, _openai("maximum context length is 10; max_tokens is not supported"), None),
        (401, _openai("Unsupported: temperature"), None),
        (500, _openai("Unsupported: temperature"), None),
        (400, _openai("max_tokens must be at most 4096"), None),
        (400, b"\xff\x00", None),
        (400, None, None),
    ],
)  # fmt: skip
def test_the_parameter_that_is_meant(status: int, body: object, name: str | None) -> None:
    assert refused_parameter(NOW, status, body) == name


def test_tools_are_left_out_only_where_the_user_did_not_choose_them() -> None:
    now = Parameters(structured="tools")
    body = {"error": "registry.ollama.ai/library/m does not support tools"}
    assert refused_parameter(now, 400, body) == "tools"
    assert refused_parameter(now, 400, body, fixed=True) is None
    assert without(now, "tools").structured == "none"


def test_each_refusal_is_the_last_of_its_name() -> None:
    now = NOW
    names = ["max_tokens", "max_completion_tokens", "seed", "random_seed", "temperature"]
    names += ["response_format", "response_format", "top_p", "n", "user", "top_k"]
    for name in names:
        assert refused_parameter(now, 400, _openai("Unsupported", name)) == name
        now = without(now, name)
    assert (now.limit, now.seed, now.temperature, now.structured) == (None, None, False, "none")
    for name in names:
        assert refused_parameter(now, 400, _openai("Unsupported", name)) is None


def test_a_schema_in_another_place_keeps_its_constraint() -> None:
    words = "response_format: missing field `value`"
    assert without(Parameters(), "response_format", words).structured == "value"
    again = without(Parameters(structured="value"), "response_format", words)
    assert again.structured == "none"
