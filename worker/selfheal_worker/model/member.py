"""One model of a chain: its provider, its limits, its breaker, and whether it is warm."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from selfheal_worker.model.circuit import Circuit
from selfheal_worker.model.errors import ModelUnavailableError
from selfheal_worker.model.limits import Limits
from selfheal_worker.model.provider import Answer, Origin, Provider, RepairRequest
from selfheal_worker.model.refusals import Refusals
from selfheal_worker.model.waking import Waking
from selfheal_worker.runtime import REAL, Runtime


class Member:
    """One model of the chain. For any thread; its breaker has a lock of its own.

    deadline: seconds for one call, None where only the message's counts. version: what the model
    must be (the beginning is enough), or, for models that have none of their own, what it is.
    longest_text: bytes that surely fit into its context, None where that is not known.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        limits: Limits | None = None,
        deadline: float | None = None,
        version: str = "",
        key: str = "",
        longest_text: int | None = None,
        runtime: Runtime = REAL,
    ) -> None:
        self.longest_text = longest_text
        self.provider = provider
        # Checked once: whether an object is of a protocol takes as much time as a message.
        self.repair_request = provider if isinstance(provider, RepairRequest) else None
        self.limits = limits or Limits(runtime=runtime)
        self.deadline = deadline
        self.key = key
        self.warm = False
        self.circuit = Circuit(runtime=runtime)
        self.refusals = Refusals(runtime=runtime)
        self._version = version
        self._waking = Waking(runtime)
        self._now = runtime.monotonic

    @property
    def origin(self) -> Origin:
        """The model as results and metrics name it; its version is known when it is warm."""
        provider = self.provider
        return Origin(provider.name, provider.model, provider.version or self._version)

    def origin_of(self, answer: Answer, origin: Origin) -> Origin:
        """The model that gave an answer; origin: as it was then. Raises `ModelUnavailableError` if
        it must be another."""
        found = self.provider.version if answer.version is None else answer.version
        self._check_version(found)
        if not answer.fingerprint and found in ("", origin.version):
            return origin
        return replace(origin, version=found or origin.version, fingerprint=answer.fingerprint)

    def wake(
        self, deadline: float | None = None, turn: AbstractContextManager[None] | None = None
    ) -> float | None:
        """Warm it up; the seconds that it took to become warm, None if it was. Raises `ModelError`.

        deadline: until when another thread is waited for that is doing it, None for ever. turn: of
        its limits, for the requests that are sent.
        """
        was_warm = self.warm
        left = -1.0 if deadline is None else max(0.0, deadline - self._now())
        if (waking := self._waking.acquire(left)) is None:
            raise self.still_loading()
        try:
            if self.warm and not was_warm:
                return None
            with turn or nullcontext():
                begun = self._now()
                self.provider.warm_up()
            self._check_version(self.provider.version)
            if was_warm:
                return None
            seconds = self._now() - begun
            self.warm = True
            return seconds
        finally:
            self._waking.release(waking)

    def still_loading(self) -> ModelUnavailableError:
        """What to raise where nobody waits for it any longer."""
        return ModelUnavailableError(f"model '{self.provider.model}' is still loading")

    def _check_version(self, found: str) -> None:
        if self._version and found and not found.startswith(self._version):
            raise ModelUnavailableError(
                f"models.{self.key}.version is {self._version}, but the model has {found}; "
                "give the server that version back, or change the value"
            )

    def until(self, deadline: float, remaining: int) -> float:
        """When this model must have answered, so that each that remains has a part of the time."""
        now = self._now()
        share = now + (deadline - now) / (remaining + 1)
        return share if self.deadline is None else min(share, now + self.deadline)
