"""A provider that does nothing, without the imports of others."""

from __future__ import annotations

from selfheal_worker.model.provider import Answer, ModelConfig

ANSWER = Answer(
    {
        "primary_emotion": "Joy",
        "sentiment": "Positive",
        "confidence_score": 0.9,
        "key_phrases": ["Thank you"],
    }
)


class Noop:
    """Has one answer for all texts."""

    name, model, version = "noop", "none", "1"

    def __init__(self, config: ModelConfig) -> None:
        """Nothing is needed."""

    def warm_up(self) -> None:
        """Nothing is loaded."""

    def close(self) -> None:
        """Nothing is open."""

    def analyse(self, text: str, deadline: float) -> Answer:
        """At once."""
        return ANSWER
