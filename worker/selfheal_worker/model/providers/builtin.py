"""The provider `builtin`: the embedded model, in this process."""

from __future__ import annotations

from selfheal_worker.builtin.classifier import Classifier
from selfheal_worker.builtin.weights import WeightsError
from selfheal_worker.model.errors import ModelConfigError, ModelUnavailableError
from selfheal_worker.model.provider import Answer, ModelConfig

MODEL = "selfheal-emotions"
TASK = "emotion"


class Builtin:
    """The embedded model. It needs no network and takes a fraction of a millisecond a text."""

    name = "builtin"
    model = MODEL

    def __init__(self) -> None:
        self._classifier: Classifier | None = None

    @property
    def version(self) -> str:
        """The weights' version; "" before `warm_up`."""
        return self._classifier.version if self._classifier else ""

    def warm_up(self) -> None:
        """Load the weights. Raises `ModelUnavailableError` where they are missing or damaged."""
        self._loaded().read("Thank you, this works very well!")

    def analyse(self, text: str, deadline: float) -> Answer:  # noqa: ARG002 - it takes no time
        """What text shows; `usage` is None, because nothing is counted in tokens."""
        reading = self._loaded().read(text)
        return Answer(
            {
                "primary_emotion": reading.emotion,
                "sentiment": reading.sentiment,
                "confidence_score": round(reading.confidence, 4),
                "key_phrases": list(reading.phrases),
            }
        )

    def close(self) -> None:
        """Nothing is open."""

    def _loaded(self) -> Classifier:
        if self._classifier is None:
            try:
                self._classifier = Classifier.load()
            except WeightsError as error:
                raise ModelUnavailableError(str(error)) from error
        return self._classifier


def build(config: ModelConfig) -> Builtin:
    """The built-in provider. Raises `ModelConfigError` where it cannot be what is meant."""
    if config.name not in (None, "", MODEL):
        name = config.setting("name")
        raise ModelConfigError(
            f"{name}={config.name}: the provider builtin has one model, {MODEL}; "
            f"leave {name} empty, or choose another {config.setting('provider')}"
        )
    if config.base_url:
        raise ModelConfigError(
            f"{config.setting('base_url')} is set, and the provider builtin uses no server; leave "
            f"it empty, or choose another {config.setting('provider')}"
        )
    if config.task.name != TASK:
        raise ModelConfigError(
            f"{config.setting('provider')}=builtin knows the task {TASK} alone, and the task file "
            f"has {config.task.name}: choose another provider, or leave TASK_FILE empty"
        )
    return Builtin()
