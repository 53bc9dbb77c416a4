"""Logs: constant events with values on standard error, so that standard output stays the user's."""

from __future__ import annotations

import logging
import sys

import structlog


def configure() -> None:
    """Coloured on a terminal, JSON elsewhere. A program that configured structlog before keeps its own."""
    if structlog.is_configured():
        return
    interactive = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *([] if interactive else [structlog.processors.format_exc_info]),
            # A plain traceback: local variables hold tokens.
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if interactive
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
