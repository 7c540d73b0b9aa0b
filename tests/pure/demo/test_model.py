"""Which model the demo takes, and how a wrong MODEL ends."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ci.demo.model import MODELS, chosen


@pytest.mark.parametrize(("value", "name"), [("", "builtin"), ("ollama", "ollama")])
def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch, value: str, name: str) -> None:
    monkeypatch.setenv("MODEL", value)
    assert chosen() is MODELS[name]


def test_the_embedded_model_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL", raising=False)
    assert chosen() is MODELS["builtin"]


def test_a_wrong_model_ends_at_once_with_what_is_allowed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ci.demo"],
        cwd=Path(__file__).parents[3],
        env={"MODEL": "gpt", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "demo: MODEL is 'gpt'; allowed: builtin (the default), ollama\n"
    assert done.stdout == ""


def test_a_real_model_gets_no_delay_on_top() -> None:
    merged: dict[str, dict[str, object]] = {}
    for file in MODELS["ollama"].values:
        for key, value in yaml.safe_load(file.read_text()).items():
            merged[key] = {**merged.get(key, {}), **value}
    assert merged["faults"]["modelDelay"] == 0
    assert merged["model"]["name"] in merged["ollama"]["models"]  # type: ignore[operator]
