"""Providers: a stranger's is found, an unused one costs nothing, a missing package is named."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from selfheal_worker.model import provider as model
from selfheal_worker.model.errors import ModelConfigError
from selfheal_worker.model.provider import ModelConfig

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "tests" / "models" / "example_provider"


def _run(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package, installed as pip does it."""
    target = tmp_path_factory.mktemp("target")
    done = _run(
        *("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
        *("--disable-pip-version-check", "--target", str(target), str(EXAMPLE)),
        HOME=str(target),
    )
    assert done.returncode == 0, done.stderr
    return target


def test_a_package_adds_a_provider_and_nothing_here_is_touched(installed: Path) -> None:
    done = _run(
        *("-m", "selfheal_worker", "analyze", "WHERE IS MY PARCEL", "-o", "json"),
        PYTHONPATH=str(installed),
        MODEL_PROVIDER="shouting",
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["primary_emotion"] == "Anger"
    assert answer["key_phrases"] == ["WHERE", "IS", "MY", "PARCEL"]
    assert answer["model"] == {"provider": "shouting", "name": "capitals", "version": "1.0"}


def test_its_own_settings_and_its_own_complaints(installed: Path) -> None:
    more = {"PYTHONPATH": str(installed), "MODEL_PROVIDER": "shouting"}
    calm = _run(
        "-m", "selfheal_worker", "analyze", "a NICE day", **more, MODEL_OPTIONS='{"share": 0.9}'
    )
    assert calm.stdout.startswith("Neutral")
    task = str(ROOT / "docs" / "examples" / "ticket-triage.yaml")
    refused = _run("-m", "selfheal_worker", "analyze", "a", **more, TASK_FILE=task)
    assert refused.returncode == 2
    assert "MODEL_PROVIDER=shouting knows the task emotion alone" in refused.stderr


def test_a_provider_that_is_not_there_is_reported_with_those_that_are(installed: Path) -> None:
    done = _run(
        *("-m", "selfheal_worker", "analyze", "a"),
        PYTHONPATH=str(installed),
        MODEL_PROVIDER="whisper",
    )
    assert done.returncode == 2
    assert "builtin, langchain, llamacpp, ollama, openai, shouting" in done.stderr


IN_AN_IMAGE = ", in an image the build argument REQUIREMENTS=worker-providers"
BRINGING = {
    "ollama": "pip install langchain-core langchain-ollama provides it",
    "openai": f"pip install langchain-openai provides it{IN_AN_IMAGE}",
    "langchain": f"pip install langchain provides it{IN_AN_IMAGE}",
    "llamacpp": "pip install langchain-community llama-cpp-python provides it",
}


@pytest.mark.parametrize(("provider", "how"), BRINGING.items())
def test_a_missing_package_is_named_with_what_brings_it(
    provider: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = model.BUILT_IN_PROVIDERS[provider].partition(":")[0]

    def importing(name: str) -> Any:
        assert name == module
        raise ModuleNotFoundError("No module named 'some_package'", name="some_package")

    monkeypatch.setattr(importlib, "import_module", importing)
    with pytest.raises(ModelConfigError) as caught:
        model.build(ModelConfig(provider, name="m", key="triage"))
    assert str(caught.value) == (
        f"models.triage.provider={provider} needs the Python module 'some_package', "
        f"which is not installed; {how}"
    )


def test_our_own_providers_are_plug_ins_like_any_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"] == {model.GROUP: dict(model.BUILT_IN_PROVIDERS)}


def test_a_package_cannot_replace_one_of_our_own_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = EntryPoints((EntryPoint("builtin", "stolen:build", model.GROUP),))
    monkeypatch.setattr(model, "entry_points", found.select)
    assert model.build(ModelConfig("builtin")).name == "builtin"
    assert model.names() == sorted(model.BUILT_IN_PROVIDERS)


def test_the_package_named_for_a_provider_is_what_its_extra_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        extra: {re.split("[>=]", package)[0] for package in packages}
        for extra, packages in project["optional-dependencies"].items()
    }
    for provider, packages in model.PACKAGES.items():
        extra = "worker" if provider == "ollama" else provider
        assert set(packages.split()) <= extras[extra]
        if extra != "worker":
            assert set(packages.split()) == extras[extra]


@pytest.mark.parametrize(("provider", "requirements"), model.REQUIREMENTS.items())
def test_the_build_argument_brings_the_packages_and_all_that_the_image_has(
    provider: str, requirements: str
) -> None:
    locked, default = (
        set(re.findall(r"^(\S+==\S+)", path.read_text(encoding="utf-8"), re.MULTILINE))
        for path in (ROOT / f"requirements/{name}.txt" for name in (requirements, "worker"))
    )
    assert default < locked
    names = {package.partition("==")[0] for package in locked}
    assert set(model.PACKAGES[provider].split()) <= names


def test_llamacpp_without_its_compiled_package_is_reported(tmp_path: Path) -> None:
    module = tmp_path / "langchain_community" / "chat_models"
    module.mkdir(parents=True)
    (module / "llamacpp.py").write_text("class ChatLlamaCpp: ...\n")
    absent = "raise ModuleNotFoundError(\"No module named 'llama_cpp'\", name='llama_cpp')\n"
    (tmp_path / "llama_cpp.py").write_text(absent)
    done = _run(
        *("-m", "selfheal_worker", "analyze", "a"),
        PYTHONPATH=str(tmp_path),
        MODEL_PROVIDER="llamacpp",
        MODEL_NAME=str(tmp_path / "llama_cpp.py"),
    )
    assert done.returncode == 2
    assert "needs the Python module 'llama_cpp', which is not installed" in done.stderr
    assert "pip install langchain-community llama-cpp-python" in done.stderr


def test_no_provider_is_imported_that_is_not_used() -> None:
    script = (
        "import sys\n"
        "from selfheal_worker.__main__ import main\n"
        "assert main(['analyze', 'I love it']) == 0\n"
        "import selfheal_worker.worker, selfheal_worker.metrics, selfheal_worker.health\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = _run("-c", script)
    assert done.returncode == 0, done.stderr
    loaded = set(eval(done.stdout.splitlines()[-1]))
    heavy = {"langchain_core", "langchain_ollama", "langchain_openai", "langchain", "openai"}
    heavy |= {"langchain_community", "ollama", "httpx", "llama_cpp", "numpy"}
    assert not loaded & heavy


OLLAMA: dict[str, Any] = {"provider": "ollama", "name": "m"}
OPENAI: dict[str, Any] = {"provider": "openai", "name": "m", "base_url": "http://h/v1"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"provider": "builtin", "base_url": "http://h"}, "MODEL_BASE_URL is set, .* no server"),
        (
            {"provider": "builtin", "base_url": "http://h", "key": "a"},
            r"^models\.a\.baseUrl is set",
        ),
        ({"provider": "openai"}, "MODEL_NAME is not set"),
        ({"provider": "openai", "name": "m"}, "neither MODEL_BASE_URL nor an API key is set"),
        ({"provider": "openai", "name": "m", "key": "a-b"}, r"OpenAI's key \(MODEL_API_KEY_A_B\)"),
        ({"provider": "openai", "key": "big"}, r"models\.big\.name is not set"),
        ({"provider": "langchain"}, "MODEL_NAME is not set"),
        ({"provider": "langchain", "name": "gpt"}, "needs PROVIDER:MODEL"),
        ({"provider": "langchain", "name": "nobody:x"}, "nobody"),
        ({"provider": "langchain", "name": "mistralai:x"}, "langchain-mistralai"),
        ({"provider": "ollama", "name": "m", "structured": "tools"}, "MODEL_STRUCTURED=tools"),
        (OLLAMA | {"options": {"num_ctx": "many"}}, r"MODEL_OPTIONS.*num_ctx: .*integer"),
        (OLLAMA | {"options": {"model": "x"}}, r"MODEL_OPTIONS.*TypeError: .*'model'"),
        (OLLAMA | {"base_url": "http://h:x"}, "MODEL_BASE_URL: .*port"),
        (OPENAI | {"options": {"n": 0}}, r"MODEL_PROVIDER=openai.*MODEL_OPTIONS.* n must be"),
        (OPENAI | {"options": {"reasoning_effort": 5}}, r"MODEL_OPTIONS.*reasoning_effort: "),
        (OPENAI | {"options": {"api_key": None}}, r"MODEL_OPTIONS.*OpenAIError: "),
        (OPENAI | {"key": "big", "base_url": "http://[h/v1"}, r"models\.big\.baseUrl: "),
    ],
)
def test_settings_that_make_no_sense_are_reported_at_the_start(
    config: dict[str, Any], said: str
) -> None:
    pytest.importorskip("langchain_openai")
    with pytest.raises(ModelConfigError, match=said):
        model.build(ModelConfig(**config))


@pytest.mark.parametrize("config", [OLLAMA, OPENAI], ids=["ollama", "openai"])
@pytest.mark.parametrize("proxy", ["foo:bar", "socks5://h:1"])
def test_a_proxy_that_makes_no_sense_is_reported_at_the_start(
    config: dict[str, Any], proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("langchain_openai")
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ModelConfigError, match="HTTPS_PROXY"):
        model.build(ModelConfig(**config))


def test_a_proxy_that_makes_no_sense_already_when_a_package_is_imported() -> None:
    pytest.importorskip("langchain_ollama")
    done = _run(
        *("-m", "selfheal_worker", "analyze", "a"),
        MODEL_PROVIDER="ollama",
        MODEL_NAME="m",
        HTTPS_PROXY="foo:bar",
    )
    assert done.returncode == 2
    assert "MODEL_PROVIDER=ollama cannot be created" in done.stderr
    assert "HTTPS_PROXY and the like: InvalidURL: Invalid port: 'bar'" in done.stderr


def _ollama_chats(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The LangChain models that the provider makes from now on."""
    from langchain_ollama import ChatOllama

    from selfheal_worker.model.providers import ollama

    made: list[Any] = []

    class Recorded(ChatOllama):
        def model_post_init(self, context: Any, /) -> None:
            super().model_post_init(context)
            made.append(self)

    monkeypatch.setattr(ollama, "ChatOllama", Recorded)
    return made


def test_ollamas_options_go_before_the_settings_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langchain_ollama")
    options = {"num_predict": 1024, "temperature": 0.5, "seed": 7, "reasoning": True}
    chats = _ollama_chats(monkeypatch)
    model.build(ModelConfig(**OLLAMA, options=options))
    assert [{name: getattr(chat, name) for name in options} for chat in chats] == [options]


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({}, 8192),
        ({"max_text_bytes": 3000}, None),  # as many as prompt, text and answer take
        ({"context_tokens": 2048}, 2048),
        ({"context_tokens": 32768}, None),
        ({"options": {"num_ctx": 4096}}, 4096),
    ],
)
def test_ollama_is_asked_for_the_context_that_the_longest_text_takes(
    more: dict[str, Any], tokens: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("langchain_ollama")
    chats = _ollama_chats(monkeypatch)
    asked: Any = model.build(ModelConfig(**OLLAMA, **more))
    assert [chat.num_ctx for chat in chats] == [asked.context_tokens]
    if tokens is not None:
        assert asked.context_tokens == tokens
    else:
        least = (more.get("max_text_bytes") or 65536) // 3 + 512
        assert least < asked.context_tokens < least + 2000
