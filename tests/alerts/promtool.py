"""promtool: checks expressions and rules, and says which alerts fire on given series."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from ci.parts import ensure

_PAIR = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_FIRED = re.compile(r"^ *Labels:\{(.*)\}\n? *Annotations:\{(.*)\}$", re.MULTILINE)


#: A question this late (minutes) is asked of rules that are evaluated each 5 minutes; it is a
#: multiple of 5 then.
LONG = 60


@dataclass(frozen=True)
class Fired:
    """One firing alert, as Alertmanager gets it."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def check_rules(path: Path) -> str:
    """Empty when promtool accepts the rules, else what it says."""
    done = _promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))
    return "" if done.returncode == 0 else done.stdout


@dataclass(frozen=True)
class Question:
    """Does this alert fire `at` (as `10m`), on these series with a value a minute from 0 on?"""

    alert: str
    series: Mapping[str, str]
    at: str


def firing(rules: Path, questions: Mapping[str, Question], folder: Path) -> dict[str, list[Fired]]:
    """What fires, by the questions' names. One promtool for all, because its start is what costs.

    promtool only compares, so it is set to expect nothing and asked what it got instead.
    """
    groups = yaml.safe_load(rules.read_text(encoding="utf-8"))["groups"]
    files = []
    for name, question in questions.items():
        own = folder / f"{question.alert}.rules.yaml"
        if not own.exists():
            own.write_text(yaml.safe_dump({"groups": _only(question.alert, groups)}))
        files.append(folder / f"{name}.test.yaml")
        files[-1].write_text(yaml.safe_dump(_test_file(own, question)))
    report = folder / "report.xml"
    done = _promtool("test", "rules", f"--junit={report}", *map(str, files))
    assert report.exists(), done.stdout
    found = {}
    for suite in ElementTree.parse(report).getroot():
        name = Path(suite.attrib["name"]).name.removesuffix(".test.yaml")
        told = "".join(suite.itertext())
        found[name] = [Fired(_pairs(m[1]), _pairs(m[2])) for m in _FIRED.finditer(told)]
        failures = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
        if failures and not found[name]:
            raise AssertionError(f"promtool could not test {name}:\n{told}")
    assert found.keys() == questions.keys(), done.stdout
    return found


def _only(alert: str, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The one alert; and the recording rules, if it uses them."""
    [rule] = [rule for group in groups for rule in group["rules"] if rule.get("alert") == alert]
    kept = [{"name": "alert", "rules": [rule]}]
    if "selfheal:" in rule["expr"]:
        used = [
            r for group in groups for r in group["rules"] if r.get("record", "~") in rule["expr"]
        ]
        kept.insert(0, {"name": "records", "rules": used})
    return kept


def _test_file(rules: Path, question: Question) -> dict[str, Any]:
    series = [{"series": name, "values": text} for name, text in question.series.items()]
    asked = {"eval_time": question.at, "alertname": question.alert, "exp_alerts": []}
    test = {"interval": "1m", "input_series": series, "alert_rule_test": [asked]}
    # Hours of rules over windows of hours, each minute, would take promtool half a minute a test.
    every = "5m" if int(question.at.removesuffix("m")) >= LONG else "1m"
    return {"rule_files": [str(rules)], "evaluation_interval": every, "tests": [test]}


def _pairs(text: str) -> dict[str, str]:
    return {m[1]: m[2].replace('\\"', '"').replace("\\\\", "\\") for m in _PAIR.finditer(text)}


def _promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What failed is said on the other stream; together they are in order."""
    return subprocess.run(
        [ensure(["promtool"])["promtool"], *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def check_config(path: Path) -> str:
    """Empty when Prometheus could read this configuration, else what promtool says."""
    done = _promtool("check", "config", "--syntax-only", "--lint=all", str(path))
    return "" if done.returncode == 0 else done.stdout


def rule_groups(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A PrometheusRule as the file that Prometheus reads."""
    return {"groups": manifest["spec"]["groups"]}


@dataclass(frozen=True)
class Expression:
    """What an expression is `at` (as `10m`): the samples, (labels as `{a="b"}`, value)."""

    expr: str
    at: str
    samples: tuple[tuple[str, float], ...] = ()


def wrong(
    asked: Mapping[str, Expression], series: Mapping[str, str], folder: Path
) -> list[tuple[str, str]]:
    """The expressions, by name, that are something else than they should be, and what they are."""
    found = []
    files = {}
    for number, (name, one) in enumerate(asked.items()):
        expected = [{"labels": labels, "value": value} for labels, value in one.samples]
        test = {
            "interval": "1m",
            "input_series": [{"series": key, "values": text} for key, text in series.items()],
            "promql_expr_test": [{"expr": one.expr, "eval_time": one.at, "exp_samples": expected}],
        }
        path = folder / f"{number}.test.yaml"
        path.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}))
        files[path.name] = name
    report = folder / "report.xml"
    done = _promtool("test", "rules", f"--junit={report}", *(str(folder / name) for name in files))
    assert report.exists(), done.stdout
    for suite in ElementTree.parse(report).getroot():
        if int(suite.attrib["failures"]) + int(suite.attrib["errors"]):
            told = "".join(suite.itertext()).strip()
            found.append((files[Path(suite.attrib["name"]).name], told))
    return found
