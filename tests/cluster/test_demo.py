"""The demo's story as assertions: what a person is shown on a real cluster is what happened."""

import pytest

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def report(demo):
    """The facts of the demo's report."""
    return demo.report


def test_nothing_is_lost(report):
    account = report["tally"]
    assert account["lost"] == account["unknown"] == account["both"] == 0
    assert account["published"] == account["answered"] + account["dead_lettered"]
    assert account["published"] >= 1_000


def test_duplicates_are_at_most_what_was_in_flight_in_the_frozen_worker(report):
    assert report["tally"]["duplicates"] <= 4  # its concurrency


def test_the_last_line_is_the_account(demo, report):
    account = report["tally"]
    assert demo.out.rstrip().splitlines()[-1] == (
        f"published {account['published']} = answered {account['answered']}"
        f" + dead-lettered {account['dead_lettered']}, lost 0, duplicates {account['duplicates']}"
    )


def test_workers_came_from_zero_and_went_back(report):
    assert report["workers_at_most"] >= 2
    assert report["scale_to_zero_seconds"] >= 0


def test_each_poison_message_is_dead_lettered_once_with_its_reason(report):
    letters = {one["message_id"]: one for one in report["dead_letters"]}
    assert len(report["dead_letters"]) == len(letters) == 5
    assert {key: (one["reason"], one["attempts"]) for key, one in letters.items()} == {
        "poison-1": ("malformed_json", 1),
        "poison-2": ("not_an_object", 1),
        "poison-3": ("missing_text", 1),
        "poison-4": ("blank_text", 1),
        "poison-5": ("text_too_large", 1),
    }


def test_the_embedded_model_answers_with_every_label_in_range(report):
    allowed = {"Joy", "Sadness", "Anger", "Fear", "Surprise", "Disgust", "Neutral"}
    assert set(report["emotions"]) <= allowed
    assert sum(report["emotions"].values()) == 500
    assert report["model"]["provider"] == "builtin"
    assert report["rated_agreed"] / report["rated_texts"] > 0.6  # a coin reaches 0.33


def test_the_fault_led_to_a_cordon_and_a_whole_drain(report):
    assert report["fault"]["left_on_node"] == 0
    reasons = [event["reason"] for event in report["events"]]
    assert [r for r in reasons if r in ("Cordoned", "DrainStarted", "DrainSucceeded")] == [
        "Cordoned",
        "DrainStarted",
        "DrainSucceeded",
    ]


def test_the_node_is_uncordoned_only_after_the_stabilization_window(report):
    stabilization_window = 15  # ci/demo/values.yaml
    assert (
        report["recovery"]["uncordoned_seconds"] >= stabilization_window - 2
    )  # the detector's look: 2 s


def test_the_frozen_worker_was_replaced(report):
    assert report["frozen"]["restarted"]
    assert report["frozen"]["replaced_seconds"] > 0
