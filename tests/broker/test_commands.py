"""The commands, as a user runs them."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pika
import pytest

from selfheal_worker.__main__ import main
from tests.broker.release_lines import each_line
from tests.support.rabbit import free_ports
from tests.support.worker_process import WorkerProcess, command, environment

if TYPE_CHECKING:
    from tests.broker.conftest import StartWorker
    from tests.support.rabbit import Rabbit, Vhost

ROOT = Path(__file__).parents[2]
GOOD = '{"id": "a", "text": "I love it"}\n{"text": "no id"}\n\n'


@each_line
def test_topology_is_idempotent(vhost: Vhost) -> None:
    env = environment(vhost.uri)
    first = command(env, "topology")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.count("' exists\n") == 5
    assert command(env, "topology").returncode == 0


@each_line
def test_topology_refuses_to_fight_and_names_both_values(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    assert command(environment(vhost.uri, DELIVERY_LIMIT=7), "topology").returncode == 0
    vhost.publish([b"kept"])
    done = command(environment(vhost.uri, DELIVERY_LIMIT=9), "topology")
    assert done.returncode == 1
    assert "'feedback'" in done.stderr
    assert "x-delivery-limit is 7, the settings want 9" in done.stderr
    assert "feedback.retry.1s' exists" in done.stdout
    assert vhost.count("feedback") == 1
    worker = start_worker(vhost.uri, DELIVERY_LIMIT=9)
    said = worker.wait_event("not connected to the broker", why="x-delivery-limit is 7")
    assert said["level"] == "error"
    code, why = worker.get("/readyz")
    assert code == 503
    assert "x-delivery-limit" in why
    assert worker.get("/healthz")[0] == 200


@each_line
def test_what_is_kept_is_bounded_by_number(vhost: Vhost) -> None:
    """Of the dead letters the oldest go; a full results queue refuses instead (see the worker)."""
    env = environment(vhost.uri, DLQ_MAX_LENGTH=3, RESULTS_MAX_LENGTH=3)
    for _ in range(2):
        assert command(env, "topology").returncode == 0
    vhost.publish([b"%d" % n for n in range(5)], queue="feedback.dead-letters")
    vhost.wait_count("feedback.dead-letters", 3)
    done = command(env, "dead-letters", "show", "-o", "json")
    assert [json.loads(line)["body"] for line in done.stdout.splitlines()] == ["2", "3", "4"]
    vhost.publish([b"x"] * 3, queue="feedback.results")
    with pytest.raises(pika.exceptions.NackError):
        vhost.publish([b"x"] * 5, queue="feedback.results")


@each_line
def test_what_is_kept_is_bounded_by_age(vhost: Vhost) -> None:
    env = environment(vhost.uri, DLQ_MAX_AGE=1, RESULTS_MAX_AGE=1)
    for _ in range(2):
        assert command(env, "topology").returncode == 0
    for queue in ("feedback.dead-letters", "feedback.results"):
        vhost.publish([b"x"], queue=queue)
    for queue in ("feedback.dead-letters", "feedback.results"):
        vhost.wait_count(queue, 0)


def obey(vhost: Vhost, runbook: str, changed: dict[str, int]) -> None:
    """Set the policy of a runbook, as it stands there but for the numbers."""
    text = (ROOT / f"alerts/runbooks/{runbook}.md").read_text(encoding="utf-8")
    (policy,) = re.findall(r"-- rabbitmqctl set_policy ([^`]+)`", text)
    name, pattern, definition, *rest = shlex.split(policy)
    definition = json.dumps(json.loads(definition) | changed)
    vhost.rabbit.ctl("set_policy", "-p", vhost.name, name, pattern, definition, *rest)


@each_line
def test_the_runbooks_policy_bounds_results_that_are_there_and_those_that_come(
    vhost: Vhost,
) -> None:
    env = environment(vhost.uri)
    assert command(env, "topology").returncode == 0
    vhost.publish([b"%d" % n for n in range(6)], queue="feedback.results")
    obey(vhost, "SelfhealResultsNotRead", {"max-length": 4, "message-ttl": 200})
    vhost.wait_count("feedback.results", 4)
    assert [body for body, _ in vhost.take("feedback.results")] == [b"2", b"3", b"4", b"5"]
    vhost.publish([b"late"], queue="feedback.results")
    vhost.wait_count("feedback.results", 0)
    assert command(env, "topology").returncode == 0


@each_line
def test_the_runbooks_policy_lets_the_oldest_go_where_the_queue_refused(vhost: Vhost) -> None:
    env = environment(vhost.uri, RESULTS_MAX_LENGTH=2)
    assert command(env, "topology").returncode == 0
    with pytest.raises(pika.exceptions.NackError):
        vhost.publish([b"x"] * 5, queue="feedback.results")
    obey(vhost, "SelfhealResultsBreakerOpen", {})
    vhost.wait_count("feedback.results", 2)
    vhost.publish([b"y", b"z"], queue="feedback.results")
    assert [body for body, _ in vhost.take("feedback.results")] == [b"y", b"z"]


def test_topology_waits_for_the_broker_and_says_so(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    env = environment(f"amqp://user:hunter2@127.0.0.1:{port}/")
    done = command(env, "topology", "--timeout", "1")
    assert done.returncode == 1
    assert "waiting for the broker, 0 s so far" in done.stderr
    assert f"amqp://user@127.0.0.1:{port}/" in done.stderr
    assert "Connection refused" in done.stderr
    assert "gave up" in done.stderr
    assert "hunter2" not in done.stderr


def test_publish_and_results(vhost: Vhost, start_worker: StartWorker, tmp_path: Path) -> None:
    env = environment(vhost.uri)
    file = tmp_path / "in.jsonl"
    file.write_text(GOOD)
    start_worker(vhost.uri).ready()
    done = command(env, "publish", str(file), "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["published"] == 2
    done = command(env, "results", "--expect", "2", "-o", "json")
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 2
    assert "a" in {result["id"] for result in results}
    assert vhost.count("feedback.results") == 0
    done = command(env, "results", "--expect", "1", "--timeout", "0.3")
    assert done.returncode == 1
    assert "0 of 1 results" in done.stderr


def test_publish_refuses_what_is_no_message_unless_raw(vhost: Vhost) -> None:
    env = environment(vhost.uri)
    command(env, "topology")
    done = command(env, "publish", "-", text='{"text": "x"}\n{"text": 5}\nnot json')
    assert done.returncode == 1
    assert "line 2: text_not_a_string" in done.stderr
    assert "line 3: malformed_json" in done.stderr
    assert vhost.count("feedback") == 0
    done = command(env, "publish", "-", "--raw", text="not json\n{}\n")
    assert done.returncode == 0
    assert [body for body, _ in vhost.take("feedback", 2)] == [b"not json", b"{}"]


def test_publish_to_a_queue_that_is_not_there(vhost: Vhost) -> None:
    done = command(environment(vhost.uri), "publish", "-", text=GOOD)
    assert done.returncode == 1
    assert "does not exist" in done.stderr
    assert "selfheal-worker topology" in done.stderr
    assert "0 of 2 were sent" in done.stderr


@pytest.mark.parametrize(
    "argv",
    [("publish", "-"), ("results",), ("dead-letters", "list")],
    ids=lambda argv: argv[0],
)
def test_wrong_credentials_are_reported_without_the_password(
    rabbit: Rabbit, argv: tuple[str, ...]
) -> None:
    env = environment(rabbit.uri(password="hunter2"))
    done = command(env, *argv, text=GOOD)
    assert done.returncode == 1
    assert "refused user name or password" in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_environment_is_reported_at_once(vhost: Vhost) -> None:
    done = command(environment(vhost.uri, CONCURRENCY="x", LOG_LEVEL="loud"), "run")
    assert done.returncode == 2
    assert "CONCURRENCY" in done.stderr
    assert "LOG_LEVEL" in done.stderr
    assert "Traceback" not in done.stderr
    done = command(environment(vhost.uri, MODEL_PROVIDER="gpt"), "run")
    assert done.returncode == 2
    assert "MODEL_PROVIDER=gpt" in done.stderr
    assert "builtin" in done.stderr


def test_a_port_in_use_is_reported(vhost: Vhost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command(environment(vhost.uri, HTTP_PORT=port), "run")
    assert done.returncode == 1
    assert f"HTTP_PORT={port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_analyze_needs_no_broker(tmp_path: Path) -> None:
    env = environment("")
    done = command(env, "analyze", "I love it, thank you")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Joy, Positive")
    file = tmp_path / "in.jsonl"
    file.write_text('{"id": 1, "text": "I hate it"}\n{"id": 2}\n{"id": "c", "text": "So sad"}\n')
    done = command(env, "analyze", "--input", str(file), "-o", "json")
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("id") for line in lines] == [1, None, "c"]
    assert lines[1] == {"error": "missing_text", "detail": lines[1]["detail"], "line": 2}
    assert command(env, "analyze").returncode == 2
    done = command(env, "analyze", "--input", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("run",),
        ("topology",),
        ("analyze",),
        ("publish",),
        ("results",),
        ("dead-letters",),
        ("dead-letters", "replay"),
    ],
    ids=lambda argv: "-".join(argv) or "main",
)
def test_help(argv: tuple[str, ...]) -> None:
    done = command(environment(""), *argv, "--help")
    assert done.returncode == 0
    assert "usage: selfheal-worker" in done.stdout


def test_a_reader_that_goes_away_is_no_traceback(vhost: Vhost) -> None:
    env = environment(vhost.uri)
    command(env, "topology")
    vhost.publish([b"{}"] * 300, queue="feedback.dead-letters")
    done = subprocess.run(
        f"{sys.executable} -m selfheal_worker dead-letters list | head -1",
        shell=True,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


class TestDeadLetters:
    @pytest.fixture
    def letters(self, vhost: Vhost, start_worker: StartWorker) -> Vhost:
        """Six letters: three reasons, two of each, in this order."""
        worker: WorkerProcess = start_worker(vhost.uri, CONCURRENCY=1).ready()
        for number in range(2):
            vhost.publish([b'{"id": "m%d"}' % number, b"{", b"[]"], message_id=f"a{number}")
        vhost.wait_count("feedback.dead-letters", 6)
        worker.terminate()
        return vhost

    def test_list_takes_nothing_away_and_keeps_the_order(
        self, letters: Vhost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        env = environment(letters.uri)
        monkeypatch.setenv("AMQP_URI", letters.uri)
        for _ in range(30):  # more than the 20 deliveries after which a quorum queue gives up
            assert main(["dead-letters", "list", "-o", "json"]) == 0
            assert len(capsys.readouterr().out.splitlines()) == 6
        done = command(env, "dead-letters", "list", "-o", "json")
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert [letter["reason"] for letter in found] == [
            "missing_text",
            "malformed_json",
            "not_an_object",
        ] * 2
        assert found[0]["id"] == "m0"
        assert found[1]["message_id"] == "a0"
        assert found[0]["attempts"] == 1
        assert found[0]["original_routing_key"] == "feedback"
        text = command(env, "dead-letters", "list", "--reason", "missing_text").stdout
        assert "2 dead letters" in text
        assert "m1" in text
        assert letters.count("feedback.dead-letters") == 6

    def test_show_has_the_body(self, letters: Vhost) -> None:
        done = command(environment(letters.uri), "dead-letters", "show", "--id", "m1", "-o", "json")
        (letter,) = [json.loads(line) for line in done.stdout.splitlines()]
        assert letter["body"] == '{"id": "m1"}'

    def test_replay_keeps_order_and_takes_our_headers_off(self, letters: Vhost) -> None:
        env = environment(letters.uri)
        done = command(env, "dead-letters", "replay", "--dry-run")
        assert "would have replayed 6" in done.stdout
        done = command(env, "dead-letters", "replay", "--dry-run", "-o", "json")
        assert json.loads(done.stdout) == {"replayed": 6, "dry_run": True}
        assert letters.count("feedback") == 0
        done = command(env, "dead-letters", "replay", "--reason", "malformed_json", "-o", "json")
        assert json.loads(done.stdout) == {"replayed": 2, "dry_run": False}
        assert letters.count("feedback.dead-letters") == 4
        taken = letters.take("feedback", 2)
        assert [properties.message_id for _, properties in taken] == ["a0", "a1"]
        assert all(set(properties.headers) == {"x-selfheal-replayed"} for _, properties in taken)
        assert command(env, "dead-letters", "replay", "--limit", "1").returncode == 0
        assert letters.take("feedback", 1)[0][0] == b'{"id": "m0"}'

    def test_what_is_replayed_was_not_late(self, vhost: Vhost, start_worker: StartWorker) -> None:
        """Its publisher's timestamp says how long it was a dead letter, not how long it waited."""
        env = environment(vhost.uri)
        assert command(env, "topology").returncode == 0
        vhost.publish([b'{"id": "a", "text": "x"}'], queue="feedback.dead-letters", timestamp=1)
        assert "replayed 1" in command(env, "dead-letters", "replay").stdout
        worker = start_worker(vhost.uri).ready()
        vhost.take("feedback.results", 1)
        assert worker.metric("selfheal_worker_queue_wait_seconds_count") == 0
        vhost.publish([b'{"id": "b", "text": "x"}'], timestamp=1)
        vhost.take("feedback.results", 1)
        assert worker.metric("selfheal_worker_queue_wait_seconds_count") == 1

    def test_all_filters_choose_what_is_replayed(self, letters: Vhost) -> None:
        env = environment(letters.uri)
        replay = ("dead-letters", "replay")
        assert "replayed 0" in command(env, *replay, "--older-than", "1h").stdout
        assert "replayed 1" in command(env, *replay, "--id", "m1", "--newer-than", "1h").stdout
        assert "replayed 2" in command(env, *replay, "--id", "a0", "--limit", "2").stdout
        found = [(body, properties.message_id) for body, properties in letters.take("feedback", 3)]
        assert found == [(b'{"id": "m1"}', "a1"), (b'{"id": "m0"}', "a0"), (b"{", "a0")]
        assert letters.count("feedback.dead-letters") == 3

    def test_long_ones_say_how_far_they_are(
        self, letters: Vhost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("AMQP_URI", letters.uri)
        monkeypatch.setattr("selfheal_worker.cli.dead_letters.PROGRESS_EACH", 0.0)
        for argv in (["list"], ["replay", "--dry-run"], ["purge", "--dry-run"]):
            assert main(["dead-letters", *argv]) == 0
            assert "6 of 6 read" in capsys.readouterr().err

    def test_age_filters(self, letters: Vhost) -> None:
        env = environment(letters.uri)
        assert "0 dead" in command(env, "dead-letters", "list", "--older-than", "1h").stdout
        assert "6 dead" in command(env, "dead-letters", "list", "--newer-than", "1h").stdout
        assert command(env, "dead-letters", "list", "--older-than", "soon").returncode == 2

    def test_purge_asks_to_be_sure(self, letters: Vhost) -> None:
        env = environment(letters.uri)
        assert command(env, "dead-letters", "purge").returncode == 2
        assert "would have purged 6" in command(env, "dead-letters", "purge", "--dry-run").stdout
        assert letters.count("feedback.dead-letters") == 6
        done = command(env, "dead-letters", "purge", "--yes", "--reason", "not_an_object")
        assert "purged 2" in done.stdout
        assert letters.count("feedback.dead-letters") == 4
        assert "purged 4" in command(env, "dead-letters", "purge", "--yes").stdout
        assert letters.count("feedback.dead-letters") == 0
