"""What begins and ends work as a whole: a term of leadership, a pause, an uninstall, another
configuration, the end of observing, a remediator that comes before us.

All methods run on the main thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from selfheal_remediator.config import Config
from selfheal_remediator.controller.mode import start_text
from selfheal_remediator.controller.node_feed import warn_of_unknown_conditions
from selfheal_remediator.controller.parts import Parts
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.lease import trusted_annotations

log = logging.getLogger(__name__)


class Leadership:
    """See the module."""

    def __init__(self, parts: Parts, clock: Callable[[], float]) -> None:
        self._parts, self._clock = parts, clock
        self._authority, self._mode, self._planner = parts.authority, parts.mode, parts.planner
        self._drains, self._healer, self._metrics = parts.drains, parts.pods.healer, parts.metrics
        self._reporter = parts.reporter
        parts.peer_check.on_first = self.first_known

    # -- terms of leadership ---------------------------------------------------------------

    def lead(self, leading: bool) -> None:
        """This process leads from now on, or does no more."""
        self._authority.begin_term(leading=leading)
        self._parts.peer_check.check_at_once()
        self._drains.follow_all()
        self._parts.repairs.forget()
        self._metrics.controller.leader.set(leading)
        # Until it is known; who does not lead does not say.
        self._metrics.controller.read_only.set(False)
        self._planner.forget_pending()
        self._parts.writer.forget_doubts()
        if leading:
            self._planner.begin_term(self._clock())
            self._parts.nodes.list_again()
            self._healer.begin()
            self._say_observing()
        else:
            self._healer.end()
            self._drains.draining.end_all()
        self._parts.restoring.follow()

    def first_known(self, first: str, why: str) -> None:
        """Which remediator comes before us, empty = none."""
        before = self._authority.first
        if first and first != before:
            log.warning("%s", why)
            self._reporter.of_itself("ReadOnly", why, warning=True)
            self._end_all()
            self._healer.end()  # it would watch pods for nothing, perhaps for months
        elif before and not first:
            log.warning("the other remediator is gone: this one acts from now on")
            self._healer.begin()
        self._authority.comes_first(first)
        self._parts.restoring.follow()
        self._metrics.controller.read_only.set(bool(first))

    def blocked(self, text: str) -> None:
        """The Lease cannot be taken."""
        self._reporter.of_itself("LeaseBlocked", text, warning=True)

    # -- what the Lease says ---------------------------------------------------------------

    def lease_changed(self, annotations: Mapping[str, str]) -> None:
        """The Lease's annotations, as they changed."""
        authority, now = self._authority, self._clock()
        self._mode.read(annotations, now)
        if authority.read_pause(annotations):
            paused = authority.paused
            self._cancel_ordered()
            if paused:
                log.warning("paused: %s", paused)
            else:
                log.warning("resumed: policies that gave up start again")
                self._healer.healing.resumed()
        if authority.read_stop(annotations, now):
            text = time_text(authority.stopped_until)
            log.warning("stopped until %s: it is being uninstalled", text)
            self._end_all()
        trusted = trusted_annotations(annotations)
        if trusted != self._planner.trusted:
            log.warning("trusted by a person: %s", ", ".join(sorted(trusted)) or "nothing")
            self._planner.trust(trusted)

    def may_have_been_paused(self) -> None:
        """What the Lease said for a moment is not known: a pause may have begun and ended."""
        self._authority.may_have_been_paused()
        self._cancel_ordered()

    def _end_all(self) -> None:
        """Nothing is changed for now; what is under way is taken up from the annotations later."""
        self._drains.draining.end_all()
        self._drains.follow_all()
        self._parts.repairs.forget()

    def _cancel_ordered(self) -> None:
        """A pause may end before the next turn: what was ordered before it is not sent."""
        self._drains.draining.cancel_ordered()
        self._healer.cancel_ordered(
            "the remediator was paused, or may have been, after this was decided"
        )

    # -- configurations --------------------------------------------------------------------

    def follow_mode(self, now: float) -> float:
        """Begin to enforce when the time of only observing is over; returns when it will be."""
        wanted = self._mode.wanted(now)
        if wanted.dry_run is not self._mode.config.dry_run:
            self._change_mode(wanted)
        until = self._mode.observes_until(now)
        observes = until is not None and self._mode.known
        self._metrics.controller.paused.set(bool(self._authority.paused) or observes)
        return float("inf") if until is None else until

    def _change_mode(self, wanted: Config) -> None:
        self.use(wanted)
        if not self._authority.leading:
            return
        if wanted.dry_run:
            self._say_observing()
        elif self._mode.reported_observing:  # else it has only just read that it may act: a restart
            self._mode.reported_observing = False
            text = "the period of observeFirst is over: it acts from now on"
            log.warning("enforcing: %s", text)
            self._reporter.of_itself("Enforcing", text)

    def _say_observing(self) -> None:
        until = self._mode.observes_until(self._clock())
        if until is None:
            return
        self._mode.reported_observing = True
        text = (
            f"it only reports what it would do until {start_text(until)} (observeFirst); "
            "see `selfheal-remediator plan`"
        )
        log.warning("observing: %s", text)
        self._reporter.of_itself("Observing", text)

    def reconfigure(self, config: Config) -> None:
        """Continue with another configuration."""
        known = self._mode.config
        if config.lease != known.lease or config.api != known.api:
            log.warning("changes of `lease` and `api` take effect at the next start only")
        self._mode.configured = config
        self.use(self._mode.wanted(self._clock()))
        log.info("new configuration: mode %s, %d rules", config.mode, len(config.rules))
        for warning in config.warnings:
            log.warning("%s", warning)
        warn_of_unknown_conditions(self._planner, self._mode.config)
        self._say_observing()

    def use(self, config: Config) -> None:
        """Act by this configuration from now on."""
        before = self._mode.config
        mode_changed = config.dry_run != before.dry_run
        if mode_changed:
            self._parts.writer.forget_doubts()
            self._drains.draining.end_all()
            self._parts.api.dry_run = config.dry_run
            self._authority.stops += 1
        self._mode.config = self._drains.draining.config = self._healer.config = config
        self._drains.follow_all()
        policies_changed = config.policies != before.policies
        if (policies_changed or mode_changed) and self._authority.responsible:
            self._healer.begin()  # what was only a dry run is decided again
        self._parts.restoring.follow()
        self._planner.reconfigure(config, self._clock())
        self._parts.repairs.forget()
        self._metrics.nodes.may_cordon(rule.condition for rule in config.all_rules if rule.cordons)
        self._metrics.repairs.may_repair(config.all_rules)
