"""Where the keys of models come from, and what is said of one that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfheal_worker.config import SettingsError, load

MODELS = json.dumps({"triage": {"provider": "builtin"}, "big-one": {"provider": "builtin"}})


def keys(**variables: str) -> dict[str, str]:
    settings = load({"MODELS": MODELS, **variables}, broker=False)
    named = {name: key.get_secret_value() for name, key in settings.model_api_keys.items()}
    common = settings.model_api_key
    return named | ({"": common.get_secret_value()} if common else {})


def refused(**variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load({"MODELS": MODELS, **variables}, broker=False)
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


SOURCES = [
    ("MODEL_API_KEY", ""),
    ("MODEL_API_KEY_FILE", ""),
    ("MODEL_API_KEY_TRIAGE", "triage"),
    ("MODEL_API_KEY_TRIAGE_FILE", "triage"),
    ("MODEL_API_KEY_BIG_ONE", "big-one"),
    ("MODEL_API_KEY_BIG_ONE_FILE", "big-one"),
]


def given(tmp_path: Path, variable: str, key: str) -> dict[str, str]:
    if not variable.endswith("_FILE"):
        return {variable: key}
    file = tmp_path / "key"
    file.write_bytes(key.encode())
    return {variable: str(file)}


@pytest.mark.parametrize("key", ["hunter2", "hunter2\n", "hunter2\r\n", " hunter2\t"])
@pytest.mark.parametrize(("variable", "model"), SOURCES)
def test_blanks_around_a_key_are_none_of_it(
    tmp_path: Path, variable: str, model: str, key: str
) -> None:
    assert keys(**given(tmp_path, variable, key)) == {model: "hunter2"}


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("hunter2\nhunter2", "character 8 is a line break"),
        ("hunter2\x00", "character 8 is a control character"),
        ("hunter2é", "character 8 is not ASCII"),
        ("“hunter2”", "character 1 is not ASCII"),
        (" \n", "is blank"),
    ],
)
@pytest.mark.parametrize("variable", [source[0] for source in SOURCES])
def test_a_key_that_no_header_takes_is_named_and_not_printed(
    tmp_path: Path, variable: str, key: str, why: str
) -> None:
    assert refused(**given(tmp_path, variable, key)) == (
        f"{variable}: {why}; a key is printable ASCII, as an HTTP header takes it"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, large, binary = (tmp_path / name for name in ("missing", "large", "binary"))
    large.write_bytes(b"x" * 70_000)
    binary.write_bytes(b"\xff\xfe")
    for variable in ("MODEL_API_KEY_FILE", "MODEL_API_KEY_TRIAGE_FILE"):
        assert refused(**{variable: str(missing)}) == (
            f"{variable}: the file {missing} cannot be read: No such file or directory"
        )
        assert "Is a directory" in refused(**{variable: str(tmp_path)})
        assert "more than 65536 bytes" in refused(**{variable: str(large)})
        assert "is not text" in refused(**{variable: str(binary)})


def test_a_variable_for_no_model_is_reported() -> None:
    for variable in ("MODEL_API_KEY_TRIAG", "MODEL_API_KEY_TRIAG_FILE"):
        said = refused(**{variable: "hunter2"})
        assert said == f"{variable}: MODELS defines no model 'triag'; it defines big-one, triage"


def test_two_sources_of_one_key_are_reported(tmp_path: Path) -> None:
    for variable in ("MODEL_API_KEY", "MODEL_API_KEY_TRIAGE"):
        both = {variable: "hunter2"} | given(tmp_path, f"{variable}_FILE", "hunter2")
        assert refused(**both) == f"{variable}_FILE: {variable} is set too; set one of them"


@pytest.mark.parametrize("value", ["x", "{}", '{"triage": "hunter2"}', "hunter2"])
def test_there_is_no_variable_with_all_keys(value: str) -> None:
    said = refused(MODEL_API_KEYS=value)
    assert said.startswith("MODEL_API_KEYS: there is no such variable; a named model's key is")


def test_a_name_that_would_make_a_variable_mean_two_things_is_refused() -> None:
    for name, variable in (("file", "MODEL_API_KEY_FILE"), ("a-file", "MODEL_API_KEY_A_FILE")):
        models = {name: {"provider": "builtin"}, "a": {"provider": "builtin"}}
        assert f"MODELS: {name!r} cannot be a model's name: {variable} is the file with" in refused(
            MODELS=json.dumps(models)
        )
    # Alone it means one thing.
    one = json.dumps({"a-file": {"provider": "builtin"}})
    assert keys(MODELS=one, MODEL_API_KEY_A_FILE="hunter2") == {"a-file": "hunter2"}


@pytest.mark.parametrize("name", ["QUEUE_NAME", "MODEL_NAME", "MODEL_BASE_URL", "AMQP_PASSWORD"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_no_setting_ends_in_a_line_break(name: str, end: str) -> None:
    value = "http://model:8000/v1" if name == "MODEL_BASE_URL" else "one"
    found = getattr(load({name: value + end}, broker=False), name.lower())
    assert (found.get_secret_value() if name == "AMQP_PASSWORD" else found) == value
