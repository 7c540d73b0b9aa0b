from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.broker.fake_ollama import FakeOllama
from tests.broker.process import WorkerProcess, environment
from tests.broker.rabbit import Rabbit, Vhost, available

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/broker" in item.path.as_posix():
            item.add_marker(pytest.mark.broker)


@contextmanager
def _running(folder: Path) -> Iterator[Rabbit]:
    """A broker with its data in `folder`, killed at the end however far it came."""
    broker = Rabbit(folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture(scope="session")
def rabbit(
    tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[[str], None]
) -> Iterator[Rabbit]:
    """A broker for all tests that leave it in one piece."""
    if why := available():
        unavailable(why)
    with _running(tmp_path_factory.mktemp("rabbit")) as broker:
        yield broker


@pytest.fixture
def own_rabbit(
    tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[[str], None]
) -> Iterator[Rabbit]:
    """A broker for one test that breaks it."""
    if why := available():
        unavailable(why)
    with _running(tmp_path_factory.mktemp("own")) as broker:
        yield broker


@pytest.fixture
def vhost(rabbit: Rabbit) -> Vhost:
    """A virtual host of its own for each test.

    It is not deleted: when a queue goes while it is being declared, RabbitMQ 4.0.5 loses the
    supervisor of its at-least-once dead-lettering, and with it every later test.
    """
    return rabbit.add_vhost(f"t{uuid.uuid4().hex[:8]}")


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
def model() -> Iterator[FakeOllama]:
    """A model server that does as it is told."""
    fake = FakeOllama().start()
    yield fake
    fake.stop()
