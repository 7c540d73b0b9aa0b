"""A real Ollama on loopback with a real small model, and selfheal-worker against it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

import ci.parts
from ci import ollama
from ci.ollama import Server
from ci.parts import PartsError
from ci.pypi import FetchFailed
from tests.support.rabbit import Rabbit, Vhost, available
from tests.support.worker_process import WorkerProcess, environment


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/models" in item.path.as_posix():
            item.add_marker(pytest.mark.models)


class Serve(Protocol):
    """Start a server with the real model; `port` 0 is any free one."""

    def __call__(self, port: int = 0) -> AbstractContextManager[Server]: ...


@pytest.fixture(scope="session")
def serve(unavailable: Callable[[str], None]) -> Serve:
    try:
        program = ci.parts.ensure(["ollama"])["ollama"]
        models = ollama.models()
    except (PartsError, ollama.OllamaFailed, FetchFailed) as error:
        unavailable(f"no Ollama: {error}")
        raise
    return partial(ollama.serving, program, models)


@pytest.fixture(scope="session")
def server(serve: Serve) -> Iterator[Server]:
    """For all tests that leave it running."""
    with serve() as started:
        yield started


class Analyze(Protocol):
    """Run `selfheal-worker analyze` with the provider ollama."""

    def __call__(
        self, base_url: str, *argv: str, text: str | None = None, **env: Any
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="session")
def analyze() -> Analyze:
    def run(
        base_url: str, *argv: str, text: str | None = None, **env: Any
    ) -> subprocess.CompletedProcess[str]:
        settings = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "MODEL_PROVIDER": "ollama",
            "MODEL_NAME": ollama.MODEL,
            "MODEL_BASE_URL": base_url,
        }
        return subprocess.run(
            [sys.executable, "-m", "selfheal_worker", "analyze", *argv],
            cwd=Path(__file__).parents[2],
            env=settings | {name: str(value) for name, value in env.items()},
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    return run


@pytest.fixture
def vhost(
    tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[[str], None]
) -> Iterator[Vhost]:
    """A virtual host of a real broker."""
    if why := available():
        unavailable(why)
    broker = Rabbit(tmp_path_factory.mktemp("rabbit"))
    try:
        broker.start()
        yield broker.add_vhost("models")
    finally:
        broker.kill()


class StartWorker(Protocol):
    def __call__(self, uri: str, **env: Any) -> WorkerProcess: ...


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Start a worker that is gone after the test, whatever it did to it."""
    started: list[WorkerProcess] = []

    def start(uri: str, **env: Any) -> WorkerProcess:
        started.append(WorkerProcess(environment(uri, **env), tmp_path / "worker.log"))
        return started[-1]

    yield start
    for one in started:
        one.kill()
