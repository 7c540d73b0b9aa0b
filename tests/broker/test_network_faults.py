"""The wire between worker and broker: cut, half open, refused, and wrapped in TLS."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from selfheal_worker.broker import WINDOW
from tests.broker.release_lines import each_line
from tests.broker.test_broker_faults import collect
from tests.broker.test_delivery import bodies
from tests.support.rabbit import PASSWORD, USER, Rabbit, available
from tests.support.tcp_proxy import Proxy
from tests.support.waiting import until
from tests.support.worker_process import PYTHON, command, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.broker.conftest import StartWorker
    from tests.support.rabbit import Vhost


#: How these methods begin in a frame: with the numbers of their class and of their own.
QUEUE_DECLARE = struct.pack(">HH", 50, 10)
BASIC_PUBLISH = struct.pack(">HH", 60, 40)


@pytest.fixture
def proxy(rabbit: Rabbit) -> Iterator[Proxy]:
    made = Proxy(rabbit.amqp)
    yield made
    made.close()


def through(proxy: Proxy, vhost: Vhost) -> str:
    return f"amqp://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}/{vhost.name}"


def test_a_wire_that_is_cut_again_and_again(
    vhost: Vhost, proxy: Proxy, start_worker: StartWorker
) -> None:
    worker = start_worker(through(proxy, vhost), FAULT_MODEL_DELAY=0.1).ready()
    vhost.publish(bodies(300))
    answered = 'selfheal_worker_messages_total{outcome="answered"}'
    cuts = 6
    for number in range(cuts):
        worker.until("no work", lambda: worker.metric(answered) >= 20 * (number + 1))  # noqa: B023
        proxy.cut()
        worker.wait_event("not connected to the broker", times=number + 1)
        worker.wait_event("connected to the broker", times=number + 2)
    seen = collect(vhost, 300)
    assert sum(seen.values()) <= 300 + cuts * 8
    assert worker.metric("selfheal_worker_broker_disconnects_total") == cuts
    vhost.wait_count("feedback", 0)
    assert vhost.count("feedback.dead-letters") == 0
    assert worker.terminate() == 0


def test_a_half_open_wire_is_found_by_the_heartbeat(
    vhost: Vhost, proxy: Proxy, start_worker: StartWorker, hang: Path
) -> None:
    env = {"AMQP_HEARTBEAT": 2, "FAULT_MODEL_HANG_FILE": hang}
    worker = start_worker(through(proxy, vhost), **env).ready()
    vhost.publish(bodies(8))
    worker.wait_in_flight(8)
    proxy.freeze()
    hang.unlink()
    worker.wait_event("not connected to the broker", why="silent")
    assert worker.get("/healthz")[0] == 200
    worker.wait_event("connected to the broker", times=2)
    seen = collect(vhost, 8)
    assert sum(seen.values()) <= 16


def test_a_wire_that_breaks_while_the_queues_are_asked_about(
    vhost: Vhost, proxy: Proxy, start_worker: StartWorker
) -> None:
    """The answer never comes; it consumes again all the same."""
    worker = start_worker(through(proxy, vhost), AMQP_HEARTBEAT=600).ready()
    with vhost.channel() as channel:
        channel.queue_delete("feedback.results")
    proxy.hold_at(QUEUE_DECLARE)  # the probe's
    vhost.publish(bodies(3))
    worker.wait_event("circuit breaker", breaker="results", state="open")
    worker.until("no probe", lambda: worker.progress()["breakers"]["results"] == "probing")
    proxy.cut()
    worker.wait_event("connected to the broker", times=2)
    assert set(collect(vhost, 3)) == {"m0", "m1", "m2"}
    worker.ready()


@each_line
def test_the_messages_of_a_frozen_worker_come_back_by_the_heartbeat(
    vhost: Vhost, start_worker: StartWorker, hang: Path
) -> None:
    """And when it thaws, what it thought was its own is not settled twice."""
    env = {"AMQP_HEARTBEAT": 2, "FAULT_MODEL_HANG_FILE": hang, "CONCURRENCY": 4}
    frozen = start_worker(vhost.uri, **env).ready()
    vhost.publish(bodies(4))
    frozen.wait_in_flight(4)
    frozen.process.send_signal(signal.SIGSTOP)
    hang.unlink()
    try:
        start_worker(vhost.uri).ready()
        seen = collect(vhost, 4)
    finally:
        frozen.process.send_signal(signal.SIGCONT)
    frozen.wait_event("not connected to the broker")
    frozen.wait_event("connected to the broker", times=2)
    frozen.ready()
    seen.update(json.loads(body)["id"] for body, _ in vhost.take("feedback.results"))
    assert sum(seen.values()) <= 8
    assert frozen.get("/healthz")[0] == 200
    vhost.wait_count("feedback", 0)
    assert vhost.count("feedback.dead-letters") == 0


def test_sigterm_on_a_half_open_wire(
    vhost: Vhost, proxy: Proxy, start_worker: StartWorker, hang: Path
) -> None:
    env = {"FAULT_MODEL_HANG_FILE": hang, "SHUTDOWN_GRACE": 2}
    worker = start_worker(through(proxy, vhost), **env).ready()
    vhost.publish(bodies(3))
    worker.wait_in_flight(3)
    proxy.freeze()
    hang.unlink()
    assert worker.terminate() == 0
    proxy.cut()
    start_worker(vhost.uri).ready()
    assert set(collect(vhost, 3)) == {"m0", "m1", "m2"}


def test_a_broker_that_refuses_for_a_while(
    vhost: Vhost, proxy: Proxy, start_worker: StartWorker
) -> None:
    worker = start_worker(through(proxy, vhost)).ready()
    proxy.refuse()
    proxy.cut()
    worker.until("no tries", lambda: proxy.accepted >= 5)
    assert worker.get("/readyz")[0] == 503
    proxy.refuse(False)
    worker.ready()
    vhost.publish(bodies(1))
    vhost.take("feedback.results", 1)


def halfway(vhost: Vhost, proxy: Proxy, *argv: str, text: str = "") -> subprocess.Popen[str]:
    """A command that fills the work queue, held when it has sent half of the messages."""
    proxy.hold_at(BASIC_PUBLISH, MANY // 2)
    running = subprocess.Popen(
        [*PYTHON, *argv],
        env=environment(through(proxy, vhost)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdin is not None
    running.stdin.write(text)
    running.stdin.close()
    running.stdin = None
    if not proxy.held.wait(60):
        running.kill()
        raise AssertionError(running.communicate())
    until("the first messages are there", lambda: vhost.count("feedback"))
    return running


MANY = 2000
NAMES = [f"m{number}" for number in range(MANY)]


@pytest.fixture
def letters(vhost: Vhost) -> Vhost:
    """Many dead letters."""
    assert command(environment(vhost.uri), "topology").returncode == 0
    vhost.fill(bodies(MANY), "feedback.dead-letters")
    return vhost


def test_a_replay_that_is_cut_in_the_middle_loses_nothing(letters: Vhost, proxy: Proxy) -> None:
    replay = halfway(letters, proxy, "dead-letters", "replay")
    proxy.cut()
    _, said = replay.communicate(timeout=60)
    assert replay.returncode == 1
    assert "Traceback" not in said
    assert "connection lost" in said
    assert 0 < letters.count("feedback") < MANY
    assert command(environment(letters.uri), "dead-letters", "replay").returncode == 0
    replayed = [json.loads(body)["id"] for body, _ in letters.drain("feedback")]
    assert set(replayed) == set(NAMES)
    assert len(replayed) <= MANY + WINDOW
    assert letters.count("feedback.dead-letters") == 0


def test_a_dead_letter_leaves_only_when_the_queue_has_it(letters: Vhost) -> None:
    with letters.channel() as channel:
        channel.queue_delete("feedback")
    done = command(environment(letters.uri), "dead-letters", "replay")
    assert done.returncode == 1
    assert "queue 'feedback' does not exist" in done.stderr
    letters.wait_count("feedback.dead-letters", MANY)


def test_a_replay_that_is_stopped_in_the_middle_loses_and_doubles_nothing(
    letters: Vhost, proxy: Proxy
) -> None:
    replay = halfway(letters, proxy, "dead-letters", "replay")
    replay.send_signal(signal.SIGTERM)
    proxy.release()
    out, said = replay.communicate(timeout=60)
    assert replay.returncode == 1
    assert "stopping" in said
    moved = letters.count("feedback")
    assert f"replayed {moved} dead letters" in out
    assert 0 < moved < MANY
    letters.wait_count("feedback.dead-letters", MANY - moved)
    assert command(environment(letters.uri), "dead-letters", "replay").returncode == 0
    replayed = [json.loads(body)["id"] for body, _ in letters.drain("feedback")]
    assert replayed == NAMES


def test_a_publish_that_is_stopped_says_where_to_continue(vhost: Vhost, proxy: Proxy) -> None:
    lines = [body.decode() + "\n" for body in bodies(MANY)]
    assert command(environment(vhost.uri), "topology").returncode == 0
    publish = halfway(vhost, proxy, "publish", "-", text="".join(lines))
    publish.send_signal(signal.SIGINT)
    proxy.release()
    _, said = publish.communicate(timeout=60)
    assert publish.returncode == 1
    sent = vhost.count("feedback")
    assert 0 < sent < MANY
    assert f"{sent} of {MANY} were sent and confirmed; the first that was not" in said
    first = int(said.strip().rpartition(" ")[2])
    assert first == sent + 1
    rest = command(environment(vhost.uri), "publish", "-", text="".join(lines[first - 1 :]))
    assert rest.returncode == 0
    assert [json.loads(body)["id"] for body, _ in vhost.drain("feedback")] == NAMES


def certificates(folder: Path) -> None:
    """A CA, and a server's and a client's certificate of it."""

    def openssl(*argv: str) -> None:
        subprocess.run(["openssl", *argv], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "stranger"):
        openssl(
            *(
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                f"/CN={name}",
            ),
            *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
        )
    for name in ("server", "client"):
        (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", f"{name}.pem"),
        )
    for file in folder.iterdir():
        file.chmod(0o644)


def test_tls_with_a_client_certificate(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    unavailable: Callable[[str], None],
    start_worker: StartWorker,
) -> None:
    if why := available():
        unavailable(why)
    tls = tmp_path / "tls"
    tls.mkdir()
    certificates(tls)
    broker = Rabbit(tmp_path_factory.mktemp("tls"), tls=tls)
    uri = f"amqps://{USER}:{PASSWORD}@127.0.0.1:{broker.amqps}/%2F"
    good = {
        "AMQP_CA_FILE": tls / "ca.pem",
        "AMQP_CERT_FILE": tls / "client.pem",
        "AMQP_KEY_FILE": tls / "client.key",
    }
    try:
        broker.start()
        worker = start_worker(uri, **good).ready()
        env = environment(uri, **good)
        done = command(env, "publish", "-", text='{"id": "a", "text": "I love it"}')
        assert done.returncode == 0, done.stderr
        done = command(env, "results", "--expect", "1")
        assert done.returncode == 0, done.stderr
        assert worker.terminate() == 0
        for wrong, said in (
            ({"AMQP_CA_FILE": tls / "stranger.pem"}, "certificate verify failed"),
            ({"AMQP_CA_FILE": tls / "ca.pem"}, "wants a client certificate"),
            ({"AMQP_CA_FILE": tmp_path / "none"}, "AMQP_CA_FILE"),
        ):
            done = command(environment(uri, **wrong), "results", "--timeout", "0.1")
            assert done.returncode == 1
            assert said in done.stderr, done.stderr
            assert "Traceback" not in done.stderr
            refused = start_worker(uri, **wrong)
            refused.wait_event("not connected to the broker", why=said)
            assert refused.get("/healthz")[0] == 200
            refused.kill()
    finally:
        broker.kill()
