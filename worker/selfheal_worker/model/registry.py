"""The chain of models that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from selfheal_worker.config import BUILT_IN, NamedModel, Settings
from selfheal_worker.model import context, errors, provider
from selfheal_worker.model.analysis import Call, nothing
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.limits import Limits
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import ModelConfig, Network, Origin
from selfheal_worker.runtime import REAL, Runtime
from selfheal_worker.task import prompt
from selfheal_worker.task.task import Task


def chain(
    settings: Settings,
    task: Task,
    *,
    observe: Callable[[Call], None] = nothing,
    loaded: Callable[[Origin, float], None] = nothing,
    before: Callable[[float], None] = nothing,
    network: Network | None = None,
    runtime: Runtime = REAL,
) -> Chain:
    """The active model and its fallbacks, not yet warm. Raises `model.ModelConfigError`.

    network: as for `ModelConfig`.
    """
    names = (settings.model_active, *settings.model_fallback)
    members: list[Member] = []
    problems: list[str] = []
    for name in names:
        try:
            members.append(member(settings, task, name, network=network, runtime=runtime))
        except errors.ModelConfigError as error:
            problems.append(str(error))
    if problems:
        raise errors.ModelConfigError("\n".join(problems))
    return Chain(
        members,
        task,
        clamp=settings.model_clamp,
        shorten=settings.model_text_too_long == "shorten",
        observe=observe,
        loaded=loaded,
        before=before,
        runtime=runtime,
    )


def member(
    settings: Settings,
    task: Task,
    name: str,
    *,
    network: Network | None = None,
    runtime: Runtime = REAL,
) -> Member:
    """One model by its name; "" is the one that MODEL_PROVIDER and so on describe.

    Raises `model.ModelConfigError`.
    """
    how = replace(config(settings, task, name), network=network, runtime=runtime)
    built = provider.build(how)
    longest = _longest_text(built, how)
    if not name:
        return Member(
            built,
            limits=_limits(
                how, built, settings.model_concurrency, settings.model_requests_per_minute
            ),
            longest_text=longest,
            runtime=runtime,
        )
    named = _find(settings, name)
    return Member(
        built,
        limits=_limits(how, built, named.concurrency, named.requests_per_minute),
        deadline=named.deadline_seconds,
        version=named.version,
        key=name,
        longest_text=longest,
        runtime=runtime,
    )


def _limits(
    how: ModelConfig,
    built: provider.Provider,
    concurrency: int | None,
    per_minute: float | None,
) -> Limits:
    """A model's limits: the user's, and what the provider can do at once (`calls_at_once`).

    A call that waited for another inside the provider would wait with its deadline running.
    """
    wanted = (concurrency, getattr(built, "calls_at_once", None))
    known = [one for one in wanted if isinstance(one, int)]
    return Limits(concurrency=min(known, default=None), per_minute=per_minute, runtime=how.runtime)


def _longest_text(built: provider.Provider, how: ModelConfig) -> int | None:
    """Bytes of a text that the model reads in full, where its context is known."""
    tokens = getattr(built, "context_tokens", None) or how.context_tokens
    if not isinstance(tokens, int) or how.provider == BUILT_IN:
        return None
    return context.longest_text(
        tokens, prompt_bytes=prompt.size(how.task), output_tokens=how.max_output_tokens
    )


def config(settings: Settings, task: Task, name: str) -> ModelConfig:
    """What a model is built from, named as for `member`. Raises `model.ModelConfigError`."""
    if not name:
        return _plain(settings, task)
    return _named(settings, task, name, _find(settings, name))


def _find(settings: Settings, name: str) -> NamedModel:
    named = settings.models.get(name)
    if named is None and name == BUILT_IN:
        named = NamedModel.model_validate({"provider": BUILT_IN})
    if named is None:
        raise errors.ModelConfigError(
            f"no model is named {name!r}; there are {', '.join(sorted(settings.models))}"
        )
    return named


def _plain(settings: Settings, task: Task) -> ModelConfig:
    key = settings.model_api_key
    return ModelConfig(
        provider=settings.model_provider,
        name=settings.model_name,
        base_url=settings.model_base_url,
        api_key=key.get_secret_value() if key else None,
        temperature=settings.model_temperature,
        deadline=settings.model_deadline,
        concurrency=settings.concurrency,
        seed=settings.model_seed,
        max_output_tokens=settings.model_max_output_tokens,
        context_tokens=settings.model_context_tokens,
        max_text_bytes=settings.max_text_bytes,
        structured=settings.model_structured,
        options=settings.model_options,
        task=task,
    )


def _named(settings: Settings, task: Task, name: str, named: NamedModel) -> ModelConfig:
    """The setting of a named model, otherwise the common one."""
    common = _plain(settings, task)
    own_settings = {
        field: own
        for field in ("temperature", "seed", "max_output_tokens", "context_tokens", "structured")
        if (own := getattr(named, field)) is not None
    }
    made = replace(
        common,
        provider=named.provider,
        name=named.name,
        base_url=named.base_url,
        deadline=named.deadline_seconds or common.deadline,
        concurrency=min(named.concurrency or common.concurrency, common.concurrency),
        options=named.options,
        key=name,
        **own_settings,
    )
    own = settings.model_api_keys.get(name)
    if own is not None:
        return replace(made, api_key=own.get_secret_value())
    return made if _server(made) == _server(common) else replace(made, api_key=None)


def _server(config: ModelConfig) -> tuple[str, str, str]:
    """Which server gets a model's key: only the one that it was set for."""
    # LangChain's names begin with whose model it is, and each of them has a server of its own.
    whose = (config.name or "").partition(":")[0] if config.provider == "langchain" else ""
    return config.provider, whose, (config.base_url or "").rstrip("/")
