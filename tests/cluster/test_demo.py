"""The demo's story as assertions: what a person is shown on a real cluster is what happened."""

import pytest

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def told(demo):
    """The facts of the demo's report."""
    return demo.report


def test_nothing_is_lost(told):
    account = told["tally"]
    assert account["lost"] == account["unknown"] == account["both"] == 0
    assert account["published"] == account["answered"] + account["dead_lettered"]
    assert account["published"] >= 1_000


def test_duplicates_are_at_most_what_was_in_flight_in_the_frozen_worker(told):
    assert told["tally"]["duplicates"] <= 4  # its concurrency


def test_the_last_line_is_the_account(demo, told):
    account = told["tally"]
    assert demo.out.rstrip().splitlines()[-1] == (
        f"published {account['published']} = answered {account['answered']}"
        f" + dead-lettered {account['dead_lettered']}, lost 0, duplicates {account['duplicates']}"
    )


def test_workers_came_from_zero_and_went_back(told):
    assert told["workers_at_most"] >= 2
    assert told["scale_to_zero_seconds"] >= 0


def test_each_poison_message_is_dead_lettered_once_with_its_reason(told):
    letters = {one["message_id"]: one for one in told["dead_letters"]}
    assert len(told["dead_letters"]) == len(letters) == 5
    assert {key: (one["reason"], one["attempts"]) for key, one in letters.items()} == {
        "poison-1": ("malformed_json", 1),
        "poison-2": ("not_an_object", 1),
        "poison-3": ("missing_text", 1),
        "poison-4": ("blank_text", 1),
        "poison-5": ("text_too_large", 1),
    }


def test_the_embedded_model_answers_with_every_label_in_range(told):
    allowed = {"Joy", "Sadness", "Anger", "Fear", "Surprise", "Disgust", "Neutral"}
    assert set(told["emotions"]) <= allowed
    assert sum(told["emotions"].values()) == 500
    assert told["model"]["provider"] == "builtin"
    assert told["rated_agreed"] / told["rated_texts"] > 0.6  # a coin reaches 0.33


def test_the_fault_led_to_a_cordon_and_a_whole_drain(told):
    assert told["fault"]["left_on_node"] == 0
    reasons = [event["reason"] for event in told["events"]]
    assert [r for r in reasons if r in ("Cordoned", "DrainStarted", "DrainSucceeded")] == [
        "Cordoned",
        "DrainStarted",
        "DrainSucceeded",
    ]


def test_the_node_is_uncordoned_only_after_the_stabilization_window(told):
    stabilization_window = 15  # ci/demo/values.yaml
    assert (
        told["recovery"]["uncordoned_seconds"] >= stabilization_window - 2
    )  # the detector's look: 2 s


def test_the_frozen_worker_was_replaced(told):
    assert told["frozen"]["restarted"]
    assert told["frozen"]["replaced_seconds"] > 0
