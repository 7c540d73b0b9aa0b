"""All invariants of the worker. Importing their modules registers them."""

from __future__ import annotations

from tests.simulation.worker import (
    invariants_of_calls,
    invariants_of_exams,
    invariants_of_messages,
    invariants_of_processes,
    invariants_of_results,
)
from tests.simulation.worker.checks import Problem, problems, sentences

MODULES = (
    invariants_of_calls,
    invariants_of_exams,
    invariants_of_messages,
    invariants_of_processes,
    invariants_of_results,
)

__all__ = ["MODULES", "Problem", "problems", "sentences"]
