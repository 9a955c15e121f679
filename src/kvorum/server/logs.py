"""The node's log for people and machines: structlog, one event a line, on standard error."""

import logging
import sys

import structlog


def configure_logs(node: str, as_json: bool) -> None:
    """Set up once per process; ``node`` stands in every line."""
    renderer: structlog.typing.Processor
    if as_json or not sys.stderr.isatty():
        renderer = (
            structlog.processors.JSONRenderer()
            if as_json
            else structlog.dev.ConsoleRenderer(colors=False)
        )
    else:
        renderer = structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(node=node)
