"""What a user may set in one YAML file; `environment.py` has what variables set.

Everything is read and checked at the start, and every mistake is reported at once with the
key's path, what was wrong and what is allowed. Durations are seconds (float) once parsed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from selfheal_remediator.api_settings import ApiBudget as ApiBudget
from selfheal_remediator.api_settings import LeaseSettings as LeaseSettings
from selfheal_remediator.drain_settings import Drain as Drain
from selfheal_remediator.ladder import MOST_STEPS, Step, Verify
from selfheal_remediator.names import Labels, NoneOrLabelKey
from selfheal_remediator.policy_settings import Policies as Policies
from selfheal_remediator.quantities import Amount, parse_amount
from selfheal_remediator.restore_settings import Restore as Restore
from selfheal_remediator.selectors import NodeSelector
from selfheal_remediator.status_page_settings import StatusPage
from selfheal_remediator.strict import ConditionType, Duration, Status
from selfheal_remediator.strict import Strict as _Strict
from selfheal_remediator.strict import need as _need
from selfheal_remediator.taint_settings import TaintSettings
from selfheal_remediator.windows import Window


class SettingsError(ValueError):
    """The configuration is invalid; `problems` has one line per mistake."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        super().__init__(f"{source}: " + "; ".join(problems))


def _statuses(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _status_text(value: object) -> object:
    # YAML turns an unquoted True into a boolean; a condition's status is text.
    if isinstance(value, list):
        return [("True" if item else "False") if isinstance(item, bool) else item for item in value]
    return value


NodeAmount = Annotated[Amount, BeforeValidator(parse_amount)]
Statuses = Annotated[
    tuple[Status, ...],
    BeforeValidator(_status_text),
    BeforeValidator(_statuses),
    Field(min_length=1),
]


#: Written by kubelet or the node controller, which have timeouts of their own: no heartbeat check.
KUBELET_CONDITIONS = frozenset(
    {"Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"}
)


#: Reported by ourselves for a node on which pods of several owners are unhealthy (see healing).
PODS_HUNG = "PodsHung"


class Rule(_Strict):
    """One condition of a node and what to do about it."""

    condition: ConditionType
    status: Statuses = ("True",)
    reason: str = ""
    for_: Duration = Field(default=60.0, alias="for")
    action: Literal["drain", "cordon", "observe"]
    latched: bool = False
    heartbeat: Duration | None = 660.0
    #: Steps that are run one after the other once the node is drained.
    then: tuple[Step, ...] = Field(default=(), max_length=MOST_STEPS)
    #: What must be true before the node is uncordoned.
    verify: Verify | None = None

    @model_validator(mode="after")
    def _repairs_what_it_empties(self) -> Rule:
        if self.then and self.action != "drain":
            raise ValueError(f"then needs action: drain, found {self.action}: it follows a drain")
        if self.verify is not None and not self.cordons:
            raise ValueError(f"verify needs action: drain or cordon, found {self.action}")
        return self

    @field_validator("reason")
    @classmethod
    def _pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{value!r:.200} is not a regular expression: {error}") from error
        return value

    @property
    def key(self) -> str:
        """Stable name of the rule inside one configuration."""
        parts = [self.condition, "|".join(self.status)]
        return "/".join([*parts, self.reason] if self.reason else parts)

    @property
    def mark(self) -> str:
        """The key, short enough for a node's annotation."""
        return f"{zlib.crc32(self.key.encode()):08x}"

    @property
    def cordons(self) -> bool:
        """Whether the rule takes a node out of service."""
        return self.action != "observe"

    @property
    def max_heartbeat_age(self) -> float | None:
        """Seconds after which the writer counts as dead; None = not checked."""
        if self.condition == PODS_HUNG:
            return None
        if self.condition in KUBELET_CONDITIONS and "heartbeat" not in self.model_fields_set:
            return None
        return self.heartbeat

    def matches_reason(self, reason: str) -> bool:
        """Whether the condition's reason is one the rule is about."""
        return not self.reason or re.search(self.reason, reason) is not None


class Rate(_Strict):
    """At most `count` new cordons in any `window` (sliding)."""

    count: int = Field(ge=1)
    window: Duration

    @model_validator(mode="after")
    def _counts(self) -> Rate:
        _need(
            "window", self.window, "1s", "no cordon would be counted, so nothing would be limited"
        )
        return self


class DisruptionLimits(_Strict):
    """How much may be out of service because of us, and how fast."""

    max_unavailable: NodeAmount = Amount(10, True)
    min_allowed: int = Field(default=1, ge=0)
    max_allowed: int | None = Field(default=None, ge=0)
    max_unavailable_per_zone: NodeAmount | None = None
    group_label: NoneOrLabelKey = ""
    max_unavailable_per_group: NodeAmount | None = None
    max_draining: int = Field(default=1, ge=0)
    max_draining_per_zone: int | None = Field(default=None, ge=1)
    max_draining_per_group: int | None = Field(default=None, ge=1)
    #: Nodes on which steps of `then` run at a time.
    max_repairing: int = Field(default=1, ge=0)
    min_interval: Duration = 0.0
    #: Ready, schedulable nodes that always stay; None = 1, and 0 where maxUnavailable is 100%.
    min_schedulable: int | None = Field(default=None, ge=0)
    rate: Rate | None = None

    @property
    def keep_schedulable(self) -> int:
        """How many ready, schedulable nodes a cordon must leave."""
        if self.min_schedulable is not None:
            return self.min_schedulable
        return 0 if self.max_unavailable == Amount(100, True) else 1

    @model_validator(mode="after")
    def _groups_are_named(self) -> DisruptionLimits:
        limits = {
            "maxUnavailablePerGroup": self.max_unavailable_per_group,
            "maxDrainingPerGroup": self.max_draining_per_group,
        }
        missing = [name for name, limit in limits.items() if limit is not None]
        if missing and not self.group_label:
            raise ValueError(
                f"{' and '.join(missing)} need groupLabel, the node label whose value is the group"
            )
        return self


class Signal(_Strict):
    """When many nodes say the same thing at once, the detector is suspected."""

    enabled: bool = True
    window: Duration = 30.0
    rollout_window: Duration = 900.0
    max_touched: NodeAmount = Amount(1, True)
    floor: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _counts(self) -> Signal:
        if self.enabled:
            why = "no nodes would count as hit at once; to switch this off set enabled: false"
            _need("window", self.window, "1s", why)
        return self


class Recovery(_Strict):
    """How a node is uncordoned."""

    stabilization_window: Duration = 300.0
    reset_stabilization_window: Duration = 600.0
    flap_window: Duration = 21600.0
    max_flaps: int = Field(default=3, ge=1)
    #: How long a human's uncordon counts while the condition stays bad.
    cancel_for: Duration = 86400.0

    @model_validator(mode="after")
    def _counts(self) -> Recovery:
        _need("flapWindow", self.flap_window, "1s", "maxFlaps would never be reached")
        why = "the node that a person uncordons would be cordoned again at once"
        _need("cancelFor", self.cancel_for, "1m", why)
        return self


def default_rules() -> tuple[Rule, ...]:
    """The default rules, used if the file has none (see README for their reasons)."""
    drain_now = [("KernelDeadlock", 60, True), ("ReadonlyFilesystem", 60, True)]
    drain_later = [
        ("KubeletUnhealthy", 300, False),
        ("ContainerRuntimeUnhealthy", 300, False),
        (PODS_HUNG, 60, False),
    ]
    noted = [
        *("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"),
        *("FrequentKubeletRestart", "FrequentDockerRestart", "FrequentContainerdRestart"),
    ]
    rules: list[dict[str, Any]] = [
        {"condition": name, "for": seconds, "action": "drain", "latched": latched}
        for name, seconds, latched in drain_now + drain_later
    ]
    rules.append(
        {"condition": "Ready", "status": ["False", "Unknown"], "for": "10m", "action": "cordon"}
    )
    rules += [{"condition": name, "for": "1m", "action": "observe"} for name in noted]
    return tuple(Rule.model_validate(rule) for rule in rules)


#: A group's limits restrict only by the keys that are set: the limits over all nodes hold as well.
_NO_LIMIT: Mapping[str, Any] = {
    "maxUnavailable": "100%",
    "maxDraining": 2**31,
    "maxRepairing": 2**31,
    "minSchedulable": 0,
}
_NOT_OF_GROUPS = ("groupLabel", "maxUnavailablePerGroup", "maxDrainingPerGroup")


def _group_limits(value: object) -> object:
    if not isinstance(value, dict):
        return value
    unfit = [key for key in _NOT_OF_GROUPS if key in value]
    if unfit:
        raise ValueError(f"{', '.join(unfit)}: allowed in the top-level limits only")
    return {**_NO_LIMIT, **value}


class OutsideWindows(_Strict):
    """What happens while none of a group's maintenance windows is open; no drain begins then."""

    cordon: Literal["allow", "wait"] = "allow"
    started_drain: Literal["continue", "pause"] = "continue"


class Group(_Strict):
    """Nodes with settings of their own; a node belongs to the first group that matches it."""

    name: str = Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    node_selector: NodeSelector
    #: None = the top-level rules.
    rules: tuple[Rule, ...] | None = None
    limits: Annotated[DisruptionLimits, BeforeValidator(_group_limits)] = Field(
        default_factory=lambda: DisruptionLimits.model_validate(_NO_LIMIT)
    )
    mode: Literal["enforce", "observe"] = "enforce"
    maintenance_windows: tuple[Window, ...] = ()
    outside_windows: OutsideWindows = Field(default_factory=OutsideWindows)

    def rules_of(self, config: Config) -> tuple[Rule, ...]:
        """The rules for its nodes; where it only observes, none takes a node out of service."""
        rules = config.rules if self.rules is None else self.rules
        if self.mode == "enforce":
            return rules
        return tuple(rule.model_copy(update={"action": "observe"}) for rule in rules)


class Config(_Strict):
    """The whole file."""

    mode: Literal["enforce", "dryRun"] = "enforce"
    #: How long an installation only says what it would do, from its first start; 0 = not at all.
    observe_first: Duration = 600.0
    node_selector: Labels = Field(default_factory=dict)
    exclude_node_selector: Labels = Field(default_factory=dict)
    control_plane: bool = False
    rules: tuple[Rule, ...] = Field(default_factory=default_rules)
    limits: DisruptionLimits = Field(default_factory=DisruptionLimits)
    signal: Signal = Field(default_factory=Signal)
    recovery: Recovery = Field(default_factory=Recovery)
    taint: TaintSettings | None = None
    drain: Drain = Field(default_factory=Drain)
    lease: LeaseSettings = Field(default_factory=LeaseSettings)
    api: ApiBudget = Field(default_factory=ApiBudget)
    policies: Policies = Field(default_factory=Policies)
    restore: Restore = Field(default_factory=Restore)
    status_page: StatusPage = Field(default_factory=StatusPage)
    groups: tuple[Group, ...] = ()

    @model_validator(mode="after")
    def _no_contradiction(self) -> Config:
        problems = _contradictions(self.rules, "rules")
        names: dict[str, int] = {}
        for position, group in enumerate(self.groups):
            where = f"groups[{position}]"
            first = names.setdefault(group.name, position)
            if first != position:
                problems.append(f"{where}.name: groups[{first}] is named {group.name} too")
            problems += _contradictions(group.rules or (), f"{where}.rules")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def group_of(self, labels: Mapping[str, str]) -> Group | None:
        """The group of a node with these labels; None = the top-level settings alone hold."""
        return next((group for group in self.groups if group.node_selector.matches(labels)), None)

    def group_named(self, name: str) -> Group | None:
        """The group of this name."""
        return next((group for group in self.groups if group.name == name), None)

    def rules_for(self, labels: Mapping[str, str]) -> tuple[Rule, ...]:
        """The rules for a node with these labels."""
        group = self.group_of(labels)
        return self.rules if group is None else group.rules_of(self)

    def for_node(self, labels: Mapping[str, str]) -> Config:
        """The same with these rules."""
        rules = self.rules_for(labels)
        return self if rules is self.rules else self.model_copy(update={"rules": rules})

    @property
    def all_rules(self) -> tuple[Rule, ...]:
        """Those of all groups as well."""
        return (*self.rules, *(rule for group in self.groups for rule in group.rules or ()))

    @property
    def warnings(self) -> list[str]:
        """What is allowed, but cannot be meant."""
        found = []
        for position, group in enumerate(self.groups):
            for earlier in self.groups[:position]:
                if earlier.node_selector.includes(group.node_selector):
                    found.append(
                        f"group {group.name} gets no node: each that it selects belongs to the "
                        f"group {earlier.name}, which comes first"
                    )
                    break
            longest = max((window.length for window in group.maintenance_windows), default=0.0)
            pauses = group.outside_windows.started_drain == "pause"
            if pauses and 0 < longest <= self.drain.wait_for_completion.max:
                found.append(
                    f"group {group.name} evicts no pod that may complete: its drains begin again "
                    "in each window, and none is longer than drain.waitForCompletion.max"
                )
        return found

    def rule_marked(self, mark: str) -> Rule | None:
        """The rule of this mark (Rule.mark), None = there is none."""
        return next((rule for rule in self.rules if rule.mark == mark), None)

    @property
    def dry_run(self) -> bool:
        """Whether every write is sent with dryRun=All."""
        return self.mode == "dryRun"


def _contradictions(rules: tuple[Rule, ...], where: str) -> list[str]:
    problems = []
    for position, rule in enumerate(rules):
        for earlier_position, earlier in enumerate(rules[:position]):
            if (
                rule.condition == earlier.condition
                and rule.reason == earlier.reason
                and set(rule.status) & set(earlier.status)
            ):
                shared = ", ".join(sorted(set(rule.status) & set(earlier.status)))
                problems.append(
                    f"{where}[{position}] and {where}[{earlier_position}] contradict: both are "
                    f"about {rule.condition}={shared} with the same reason; keep one"
                )
    return problems


def parse_config(text: str, source: str) -> Config:
    """The configuration from YAML text. Raises SettingsError with every mistake found."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(source, [f"not YAML: {' '.join(str(error).split())}"]) from error
    except Exception as error:
        # The parser's constructors raise whatever their conversions do: KeyError for `!!bool x`,
        # IndexError for `!!int ''`, ValueError for a date that is none (2026-13-01).
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        problem = f"not YAML: a tag or value is invalid ({said})"
        raise SettingsError(source, [problem]) from error
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise SettingsError(source, [f"a mapping is expected, found {type(raw).__name__}"])
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise SettingsError(source, [_problem(item, raw) for item in error.errors()]) from error
    except (RecursionError, TypeError, ValueError, OverflowError) as error:
        # A YAML anchor that contains itself, a number beyond all bounds.
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise SettingsError(source, [f"a value is invalid ({said})"]) from error


def _problem(item: Any, raw: Mapping[str, Any]) -> str:
    where = ""
    for part in item["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "unknown key"
    match item["loc"]:
        case ("groups", int() as position, _, *_):
            group = raw["groups"][position]
            if isinstance(group, dict) and isinstance(group.get("name"), str):
                where += f" (group {group['name']:.63})"
    return f"{where}: {message}" if where else message


def load_config(path: Path) -> Config:
    """The configuration from a file. Raises SettingsError, also when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(str(path), [f"cannot be read: {error.strerror or error}"]) from error
    except UnicodeDecodeError as error:
        raise SettingsError(str(path), [f"not UTF-8 at byte {error.start}"]) from error
    except ValueError as error:
        raise SettingsError(str(path), [f"cannot be read: {error}"]) from error
    return parse_config(text, str(path))
