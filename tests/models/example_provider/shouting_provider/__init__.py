"""A provider of models for selfheal-worker: who writes in capitals is angry.

`docs/providers.md` goes through it.
"""

from __future__ import annotations

import time

from selfheal_worker.model.errors import ModelConfigError, TransientError
from selfheal_worker.model.provider import Answer, ModelConfig, Usage


class Shouting:
    """Counts capitals."""

    name = "shouting"

    def __init__(self, config: ModelConfig) -> None:
        self.model = config.name or "capitals"
        self.version = ""
        self._share = float(config.options.get("share", 0.5))

    def warm_up(self) -> None:
        """A real one connects here, and finds out which version answers."""
        self.version = "1.0"

    def analyse(self, text: str, deadline: float) -> Answer:
        """Called by several threads at once."""
        if time.monotonic() >= deadline:
            raise TransientError("no time is left for the call")
        words = text.split()
        loud = [word for word in words if word.isupper() and len(word) > 1]
        angry = len(loud) >= self._share * len(words)
        return Answer(
            {
                "primary_emotion": "Anger" if angry else "Neutral",
                "sentiment": "Negative" if angry else "Neutral",
                "confidence_score": 0.6,
                "key_phrases": loud[:10],
            },
            Usage(input_tokens=len(words), output_tokens=4),
        )

    def close(self) -> None:
        """Nothing is held open."""


def build(config: ModelConfig) -> Shouting:
    """What the entry point names. Raises `ModelConfigError` for settings that make no sense."""
    if config.task.name != "emotion":
        raise ModelConfigError(
            f"{config.setting('provider')}=shouting knows the task emotion alone"
        )
    return Shouting(config)
