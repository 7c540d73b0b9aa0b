"""The provider `builtin`, as the worker uses it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from selfheal_worker.builtin.classifier import Classifier
from selfheal_worker.builtin.weights import WeightsError
from selfheal_worker.model import provider as model
from selfheal_worker.model.errors import ModelConfigError, ModelUnavailableError
from selfheal_worker.model.provider import ModelConfig
from selfheal_worker.model.providers import builtin

TEXTS = [
    "Thank you, I love it!",
    "I hate this, refund me now",
    "I'm worried about my data",
    "The box has two parts.",
]


def test_it_answers_in_the_shape_of_the_task() -> None:
    provider = model.build(ModelConfig("builtin"))
    assert provider.version == ""
    provider.warm_up()
    assert provider.name == "builtin"
    assert provider.version.startswith("1+")
    answer = provider.analyse("Thank you, I love it!", 0.0)
    assert isinstance(answer.content, dict)
    assert answer.content["primary_emotion"] == "Joy"
    assert answer.content["sentiment"] == "Positive"
    assert 0.5 < answer.content["confidence_score"] <= 1
    assert set(answer.content["key_phrases"]) == {"Thank", "love"}
    assert answer.usage is None
    provider.close()


@pytest.mark.parametrize("name", [None, "", builtin.MODEL])
def test_it_has_one_model(name: str | None) -> None:
    assert model.build(ModelConfig("builtin", name=name)).model == builtin.MODEL


def test_another_model_is_refused_by_name() -> None:
    with pytest.raises(ModelConfigError, match=r"MODEL_NAME=gpt-9.*selfheal-emotions"):
        model.build(ModelConfig("builtin", name="gpt-9"))


def test_damaged_weights_are_an_unavailable_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged() -> Classifier:
        raise WeightsError("the model's weights w.bin cannot be used: checksum mismatch")

    monkeypatch.setattr(Classifier, "load", damaged)
    with pytest.raises(ModelUnavailableError, match="checksum mismatch"):
        model.build(ModelConfig("builtin")).warm_up()


def test_threads_get_the_answers_that_one_gets() -> None:
    provider = model.build(ModelConfig("builtin"))
    alone = [provider.analyse(text, 0.0).content for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: provider.analyse(text, 0.0).content, TEXTS * 50))
    assert together == alone * 50


def test_processes_with_other_hash_seeds_give_the_same_answers() -> None:
    script = (
        "from selfheal_worker.builtin.classifier import Classifier\n"
        f"c = Classifier.load()\nprint([c.read(t) for t in {TEXTS!r}])"
    )
    root = Path(builtin.__file__).parents[1]
    answers = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed},
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1
    assert "Joy" in answers.pop()


def test_nothing_but_the_standard_library_is_loaded() -> None:
    script = (
        "import sys; before = set(sys.modules)\n"
        "from selfheal_worker.builtin.classifier import Classifier\n"
        "Classifier.load().read('I love it')\n"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    root = Path(builtin.__file__).parents[1]
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=root, check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == "['selfheal_worker']"
