"""The demo's story as assertions: what a person is shown on a real cluster is what happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(request, tmp_path_factory, unavailable):
    """One run of the demo, shown as it goes: its output and report."""
    if os.geteuid() != 0 or sys.platform != "linux":
        unavailable("the local cluster needs Linux and root")
    report = tmp_path_factory.mktemp("demo") / "report.json"
    command = [sys.executable, "-u", "-m", "ci.demo", "--report", str(report)]
    capture = request.config.pluginmanager.getplugin("capturemanager")
    out = []
    with (
        capture.global_and_fixture_disabled(),
        subprocess.Popen(
            command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        for line in process.stdout:
            sys.stdout.write(line)
            out.append(line)
    assert process.returncode == 0, "".join(out)
    return {"out": "".join(out), **json.loads(report.read_text())}


def test_nothing_is_lost(demo):
    account = demo["tally"]
    assert account["lost"] == account["unknown"] == account["both"] == 0
    assert account["published"] == account["answered"] + account["dead_lettered"]
    assert account["published"] >= 1_000


def test_duplicates_are_at_most_what_was_in_flight_in_the_frozen_worker(demo):
    assert demo["tally"]["duplicates"] <= 4  # its concurrency


def test_the_last_line_is_the_account(demo):
    account = demo["tally"]
    assert demo["out"].rstrip().splitlines()[-1] == (
        f"published {account['published']} = answered {account['answered']}"
        f" + dead-lettered {account['dead_lettered']}, lost 0, duplicates {account['duplicates']}"
    )


def test_workers_came_from_zero_and_went_back(demo):
    assert demo["workers_at_most"] >= 2
    assert demo["scale_to_zero_seconds"] >= 0


def test_each_poison_message_is_dead_lettered_once_with_its_reason(demo):
    letters = {one["message_id"]: one for one in demo["dead_letters"]}
    assert len(demo["dead_letters"]) == len(letters) == 5
    assert {key: (one["reason"], one["attempts"]) for key, one in letters.items()} == {
        "poison-1": ("malformed_json", 1),
        "poison-2": ("not_an_object", 1),
        "poison-3": ("missing_text", 1),
        "poison-4": ("blank_text", 1),
        "poison-5": ("text_too_large", 1),
    }


def test_the_embedded_model_answers_with_every_label_in_range(demo):
    allowed = {"Joy", "Sadness", "Anger", "Fear", "Surprise", "Disgust", "Neutral"}
    assert set(demo["emotions"]) <= allowed
    assert sum(demo["emotions"].values()) == 500
    assert demo["model"]["provider"] == "builtin"
    assert demo["rated_agreed"] / demo["rated_texts"] > 0.6  # a coin reaches 0.33


def test_the_fault_led_to_a_cordon_and_a_whole_drain(demo):
    assert demo["fault"]["left_on_node"] == 0
    reasons = [event["reason"] for event in demo["events"]]
    assert [r for r in reasons if r in ("Cordoned", "DrainStarted", "DrainSucceeded")] == [
        "Cordoned",
        "DrainStarted",
        "DrainSucceeded",
    ]


def test_the_node_was_given_back_only_after_the_hold_down(demo):
    hold_down = 15  # ci/demo/values.yaml
    assert demo["recovery"]["uncordoned_seconds"] >= hold_down - 2  # the detector's look: 2 s


def test_the_frozen_worker_was_replaced(demo):
    assert demo["frozen"]["replaced_seconds"] > 0
