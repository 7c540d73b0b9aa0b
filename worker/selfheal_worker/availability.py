"""Whether the models are there: their common circuit breaker, and the probe that closes it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from selfheal_worker.handlers import HANG_MARGIN
from selfheal_worker.logs import say
from selfheal_worker.model import breaker as breakers
from selfheal_worker.model.breaker import Breaker
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.circuit import Circuit
from selfheal_worker.model.errors import ModelAccessError, ModelError
from selfheal_worker.model.failure_effects import BreakerEffect, breaker_effect
from selfheal_worker.model.limits import LimitedError, pause_asked
from selfheal_worker.model.load_time import LONGEST_LOAD
from selfheal_worker.runtime import REAL, Runtime

# How many deadlines a probe of the models may take, beside the time to load them again: warm-up
# and call, of each model of a chain, and their name look-ups.
PROBE_DEADLINES = 10


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How a probe of the models ended. access: a key or a quota was refused."""

    succeeded: bool
    why: str = ""
    access: bool = False


class ModelAvailability:
    """Whether the models are there, as far as messages and probes have shown.

    For the link's thread; `_run_probe` runs in a `probe` thread, and any thread may read.
    """

    def __init__(
        self,
        chain: Chain,
        deadline: float,
        changed: Callable[[], None],
        runtime: Runtime = REAL,
    ) -> None:
        """deadline: seconds for one analysis; changed: as for `Circuit`."""
        self._chain = chain
        self._runtime = runtime
        self._deadline = deadline
        # Not warm yet is the same as open: the first probe warms the model.
        self.circuit = Circuit("model", Breaker(breakers.State.OPEN), changed, runtime)
        self._warm = False
        self._trouble = ""
        self._probe_result: ProbeResult | None = None
        self._probe_by = math.inf

    @property
    def closed(self) -> bool:
        """Whether work may flow, as far as the models are concerned."""
        return self.circuit.closed

    def not_ready(self) -> str | None:
        """Why no message can be analysed, if none can."""
        if not self._warm:
            return f"the model is not warm yet{self._trouble}"
        if not self.closed:
            return f"the model is away (circuit breaker open){self._trouble}"
        return None

    def judge(self, error: BaseException | None) -> bool:
        """What a handler's outcome says of the models; whether it excuses the message.

        It does when the model is away. A model whose server wants a longer pause than a message can
        wait is away as well, but the text that it was asked about is not excused: it may be too
        large for the server's quota, and would be held for ever.
        """
        before = self.circuit.breaker
        if error is None:
            self.circuit.succeeded()
            return False
        patience = self._chain.patience(self._deadline)
        effect = breaker_effect(error, patience)
        if effect is not BreakerEffect.NONE:
            self._trouble = f": {error}"
            away = effect is BreakerEffect.OPENS
            self.circuit.failed(str(error), away=away)
        called = not isinstance(error, LimitedError)
        opened = before.closed and called and pause_asked(error) > patience
        return not self.closed and not opened

    def probe(self, now: float) -> None:
        """Probe in a thread of its own: the handlers may all be waiting for the model."""
        if not self._chain.loading:
            self._probe_by = now + LONGEST_LOAD + PROBE_DEADLINES * self._deadline + HANG_MARGIN
        self.circuit.begin_probe()
        try:
            self._runtime.start("probe", self._run_probe)
        except RuntimeError as error:  # the machine has no thread to spare
            self._probe_result = ProbeResult(False, str(error))

    def probe_others(self) -> None:
        """Probe the models of the chain that are away while others answer, where that is due."""
        self._chain.probe_due()

    def release(self) -> None:
        """Let go of what waits for a model's turn and was given up."""
        self._chain.release()

    def close(self) -> None:
        """Let go of the models."""
        self._chain.close()

    def hung_probe(self, now: float) -> bool:
        """Whether a probe is past its deadline."""
        return now > self._probe_by

    def _run_probe(self) -> None:
        try:
            self._chain.wake(self._deadline)
            result = ProbeResult(True)
        except ModelError as error:
            result = ProbeResult(False, str(error), isinstance(error, ModelAccessError))
        except BaseException as error:  # noqa: BLE001 a plug-in's fault must not end the probing
            result = ProbeResult(False, f"{type(error).__name__} in the provider")
        self._probe_result = result

    def take_probe_result(self) -> None:
        """See whether a probe has ended."""
        result = self._probe_result
        if result is None:
            return  # not cleared: the probe may end just now
        self._probe_result = None
        self._probe_by = math.inf
        if result.succeeded and not self._warm:
            self._warm = True
            self._say_warm()
        if not result.succeeded:
            self._trouble = f": {result.why}"
            say(logging.DEBUG, "the model is still away", why=result.why)
            if not self._warm and not self.circuit.breaker.probes:
                say(logging.WARNING, "the model cannot be reached yet", why=result.why)
        self.circuit.probed(result.why, succeeded=result.succeeded, access=result.access)

    def _say_warm(self) -> None:
        active, task = self._chain.active, self._chain.task
        say(
            logging.INFO,
            "model is warm",
            provider=active.provider,
            model=active.name,
            version=active.version,
            task=f"{task.name} {task.version}",
        )
