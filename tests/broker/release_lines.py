"""Marks for tests of what may differ between RabbitMQ's lines: they run on each."""

from __future__ import annotations

import pytest

from tests.support.rabbit import LINES

each_line = pytest.mark.parametrize("vhost", list(LINES), indirect=True)
each_own_line = pytest.mark.parametrize("own_rabbit", list(LINES), indirect=True)
