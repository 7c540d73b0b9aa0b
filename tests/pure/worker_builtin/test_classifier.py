"""What the built-in model answers: clear cases, and what holds for any text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal_worker.builtin import features, weights
from selfheal_worker.builtin.classifier import (
    EMOTIONS,
    FILE,
    MAX_PHRASES,
    SENTIMENTS,
    Classifier,
    Reading,
)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load()


@pytest.fixture(scope="module")
def table() -> weights.Table:
    return weights.read(FILE)


CLEAR = [
    ("Thank you so much, the replacement came quickly and works perfectly!", "Joy", "Positive"),
    ("I love this app, the new search is fantastic.", "Joy", "Positive"),
    ("Great service, no problems at all 😊", "Joy", "Positive"),
    ("I am furious, you charged my card twice again!", "Anger", "Negative"),
    ("This is ridiculous, your support hung up on me.", "Anger", "Negative"),
    ("What a scam, I want my money back 😡", "Anger", "Negative"),
    ("I'm so sad that you discontinued my favourite tea.", "Sadness", "Negative"),
    ("Very disappointed with the result, I expected more.", "Sadness", "Negative"),
    ("It breaks my heart that the shop had to close 😢", "Sadness", "Negative"),
    ("I'm worried that my card details were leaked.", "Fear", "Negative"),
    ("The brakes failed and I was terrified.", "Fear", "Negative"),
    ("I'm afraid to use the charger, it gets so hot.", "Fear", "Negative"),
    ("Disgusting, there was a hair in my soup.", "Disgust", "Negative"),
    ("The meat smelled rotten and made me vomit.", "Disgust", "Negative"),
    ("Eww, the towels were filthy 🤢", "Disgust", "Negative"),
    ("Wow, I did not expect it to arrive the same day!", "Surprise", None),
    ("I was surprised to see that the shop has moved.", "Surprise", None),
    ("OMG, no way, is that really free?!", "Surprise", None),
    ("I ordered two chairs and a table on Monday.", "Neutral", "Neutral"),
    ("The invoice number is 4711.", "Neutral", "Neutral"),
    ("The manual describes the menu on page 12.", "Neutral", "Neutral"),
]


@pytest.mark.parametrize(("text", "emotion", "sentiment"), CLEAR)
def test_clear_feedback(
    classifier: Classifier, text: str, emotion: str, sentiment: str | None
) -> None:
    reading = classifier.read(text)
    assert reading.emotion == emotion
    assert sentiment in (None, reading.sentiment)
    assert reading.confidence > 1 / len(EMOTIONS)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("I'm worried that my card details were leaked.", "worried"),
        ("The towels were FILTHY", "FILTHY"),
        ("I am not happy with the new lock", "not happy"),
    ],
)
def test_the_telling_words_are_among_the_phrases(
    classifier: Classifier, text: str, phrase: str
) -> None:
    assert any(phrase in found for found in classifier.read(text).phrases)


def test_negation_turns_the_sentiment(classifier: Classifier) -> None:
    assert classifier.read("I am happy with it").sentiment == "Positive"
    assert classifier.read("I am not happy with it").sentiment == "Negative"


@pytest.mark.parametrize(
    "text", ["", "   ", "...", "не работает", "届きませんでした", "שלום", "\ud800"]
)
def test_what_it_cannot_read_is_neutral_by_chance(classifier: Classifier, text: str) -> None:
    reading = classifier.read(text)
    assert (reading.emotion, reading.sentiment, reading.phrases) == ("Neutral", "Neutral", ())
    assert reading.confidence <= 0.35


def test_one_known_word_in_another_language_says_nothing(classifier: Classifier) -> None:
    assert classifier.read("sad").emotion == "Sadness"
    assert classifier.read("Sad Wolke Baum Licht Kiste").emotion == "Neutral"


def _sound(text: str, reading: Reading) -> None:
    assert reading.emotion in EMOTIONS
    assert reading.sentiment in SENTIMENTS
    assert 0 <= reading.confidence <= 1
    assert len(reading.phrases) <= MAX_PHRASES
    assert len(set(reading.phrases)) == len(reading.phrases)
    assert all(phrase.strip() and phrase in text for phrase in reading.phrases)
    assert (reading.emotion, reading.sentiment) != ("Joy", "Negative")
    if reading.emotion in ("Anger", "Disgust", "Fear", "Sadness"):
        assert reading.sentiment != "Positive"


# fmt: off
WORDS = st.sampled_from((
    "not", "never", "no", "didn't", "n't", "love", "Hate", "WORST", "broken!", "refund?",
    "good", "bad", "😡", ":(", ":)", "<3", "a", "i", "the", "soooo", "İ", "ſ", "ﬁ", "wow",
    "disgusting", "afraid", "sad", "@you", "http://x", "[NAME]", "5", "2024", "…", "'", "’",
    "...", "!!!", "?!", "_", "^_^", "naïvé",
))
# fmt: on


@settings(deadline=None)
@given(st.one_of(st.text(), st.lists(WORDS, max_size=40).map(" ".join)))
def test_any_text_has_a_sound_answer(classifier: Classifier, text: str) -> None:
    _sound(text, classifier.read(text))


@settings(deadline=None)
@given(st.lists(st.lists(WORDS, max_size=8).map(" ".join), max_size=6))
def test_an_answer_depends_on_its_text_alone(
    classifier: Classifier, table: weights.Table, texts: list[str]
) -> None:
    fresh = Classifier(table)
    for text in texts:
        fresh.read(text)
    for text in reversed(texts):
        assert fresh.read(text) == classifier.read(text)


@pytest.mark.parametrize(
    "text",
    ["not " * 16384, "!" * 65536, "a'" * 32768, "😡" * 16384, "^" + "_" * 65535, ":" * 65536],
)
def test_the_longest_text_has_a_sound_answer(classifier: Classifier, text: str) -> None:
    _sound(text, classifier.read(text))


def test_what_is_remembered_is_bounded_and_changes_no_answer(
    classifier: Classifier, table: weights.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfheal_worker.builtin.classifier._CACHED_WORDS", 4)
    monkeypatch.setattr("selfheal_worker.builtin.classifier._CACHED_PAIRS", 3)
    fresh = Classifier(table)
    most = 0
    for text, _, _ in CLEAR:
        assert fresh.read(text) == classifier.read(text)
        words, pairs = fresh.remembered
        assert words <= 4
        assert pairs <= 3
        most = max(most, pairs)
    assert most == 3


def test_words_too_long_to_be_words_are_not_remembered(classifier: Classifier) -> None:
    before = features.spelt.cache_info().currsize
    classifier.read("".join(map(chr, range(0x4E00, 0x4E00 + 5000))))
    assert features.spelt.cache_info().currsize == before


def test_what_the_sentiments_lean_to_has_no_say_in_the_emotion() -> None:
    table = weights.read(FILE)

    def read(*lean: float) -> list[Reading]:
        leaning = Classifier(replace(table, header={**table.header, "lean": lean}))
        return [leaning.read(text) for text, _, _ in CLEAR]

    level, negative = read(0, 0, 0), read(0, 50, 0)
    assert [(r.emotion, r.confidence) for r in level] == [
        (r.emotion, r.confidence) for r in negative
    ]
    assert {r.sentiment for r in level} == set(SENTIMENTS)
    # All that may be: Joy is never Negative.
    assert {r.sentiment for r in negative if r.emotion != "Joy"} == {"Negative"}
    assert "Negative" not in {r.sentiment for r in negative if r.emotion == "Joy"}
