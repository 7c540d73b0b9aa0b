from __future__ import annotations

import uuid
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.support.fake_ollama import FakeOllama
from tests.support.rabbit import LINE, Rabbit, Vhost, available
from tests.support.worker_process import WorkerProcess, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/broker" in item.path.as_posix():
            item.add_marker(pytest.mark.broker)


@contextmanager
def _running(folder: Path, line: str) -> Iterator[Rabbit]:
    """A broker with its data in `folder`, killed at the end however far it came."""
    broker = Rabbit(folder, line=line)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture(scope="session")
def brokers(
    tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[[str], None]
) -> Iterator[Callable[[str], Rabbit]]:
    """A broker of each line, started when it is asked for, for the tests that leave it whole."""
    running: dict[str, Rabbit] = {}
    with ExitStack() as stack:

        def broker(line: str) -> Rabbit:
            if line not in running:
                if why := available(line):
                    unavailable(why)
                folder = tmp_path_factory.mktemp("rabbit")
                running[line] = stack.enter_context(_running(folder, line))
            return running[line]

        yield broker


@pytest.fixture(scope="session")
def rabbit(brokers: Callable[[str], Rabbit]) -> Rabbit:
    """A broker for all tests that leave it in one piece."""
    return brokers(LINE)


@pytest.fixture
def own_rabbit(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    unavailable: Callable[[str], None],
) -> Iterator[Rabbit]:
    """A broker for one test that breaks it; the parameter is its line."""
    line = getattr(request, "param", LINE)
    if why := available(line):
        unavailable(why)
    with _running(tmp_path_factory.mktemp("own"), line) as broker:
        yield broker


@pytest.fixture
def vhost(request: pytest.FixtureRequest, brokers: Callable[[str], Rabbit]) -> Vhost:
    """A virtual host of its own for each test; the parameter is its broker's line.

    It is not deleted: when a queue goes while it is being declared, RabbitMQ 4.0.5 loses the
    supervisor of its at-least-once dead-lettering, and with it every later test.
    """
    broker = brokers(getattr(request, "param", LINE))
    return broker.add_vhost(f"t{uuid.uuid4().hex[:8]}")


class StartWorker(Protocol):
    def __call__(self, uri: str, **env: Any) -> WorkerProcess: ...


@pytest.fixture
def start_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWorker]:
    """Start workers that are gone after the test, whatever it did to them."""
    started: list[WorkerProcess] = []

    def start(uri: str, **env: Any) -> WorkerProcess:
        log = tmp_path_factory.mktemp("worker") / "log"
        started.append(WorkerProcess(environment(uri, **env), log))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def hang(tmp_path: Path) -> Path:
    """While this file is there, a worker's calls hang that has it as FAULT_MODEL_HANG_FILE."""
    file = tmp_path / "hang"
    file.touch()
    return file


@pytest.fixture
def model() -> Iterator[FakeOllama]:
    """A model server that does as a test sets."""
    fake = FakeOllama().start()
    yield fake
    fake.stop()
