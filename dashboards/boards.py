"""All dashboards."""

from __future__ import annotations

from dashboards.model import MODEL
from dashboards.overview import OVERVIEW
from dashboards.remediation import REMEDIATION
from dashboards.worker import WORKER_BOARD

BOARDS = (OVERVIEW, WORKER_BOARD, MODEL, REMEDIATION)
