"""Which model the workers of the demo ask: the embedded one, or a real Ollama in the cluster."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ci.images.catalog import OLLAMA_MODELS

_HERE = Path(__file__).parent


class UnknownModel(Exception):
    """MODEL names none of those that the demo knows; the message says which it does."""


@dataclass(frozen=True)
class Model:
    """What is installed and published with one model.

    `images` maps an image that is built here to its key in the chart's values, `local_values` are
    for the local cluster only; `texts` are those of the three waves; `patience` is in seconds.
    """

    values: tuple[Path, ...]
    texts: tuple[int, int, int]
    patience: float
    images: Mapping[str, str] = field(default_factory=dict)
    local_values: Mapping[str, str] = field(default_factory=dict)


MODELS = {
    "builtin": Model((_HERE / "values.yaml",), texts=(500, 500, 200), patience=300.0),
    # Seconds a text on two cores that the whole cluster shares.
    "ollama": Model(
        (_HERE / "values.yaml", _HERE / "values-ollama.yaml"),
        texts=(24, 16, 12),
        patience=900.0,
        images={"ollama": "ollama"},
        local_values={"ollama.modelsInImage": OLLAMA_MODELS},
    ),
}


def chosen() -> Model:
    """The model that the environment variable MODEL names. Raises UnknownModel."""
    name = os.environ.get("MODEL") or "builtin"
    if name not in MODELS:
        raise UnknownModel(f"MODEL is {name!r}; allowed: builtin (the default), ollama")
    return MODELS[name]
