"""How the server logs: events as past-tense names, facts as keys, one line each, no secrets."""

import logging
import sys

import structlog

from layover.redaction import may_hold_secrets, redact_fields


class Redacting:
    """The last processor: renders a line, and renders it anew where it may hold secrets.

    Whatever was logged passes here, exceptions and other libraries' words too.
    """

    def __init__(self, renderer: structlog.typing.Processor) -> None:
        self._renderer = renderer

    def __call__(
        self, logger: structlog.typing.WrappedLogger, name: str, event: structlog.typing.EventDict
    ) -> str:
        # A renderer takes out of its fields what it has written.
        line = self._renderer(logger, name, {**event})
        assert isinstance(line, str)
        if may_hold_secrets(line):
            line = self._renderer(logger, name, redact_fields(dict(event)))
            assert isinstance(line, str)
        return line


def configure(as_json: bool) -> None:
    """Write JSON lines, or columns for people, to standard error."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # As text, and plain: a renderer of its own would show what local variables hold.
        structlog.processors.format_exc_info,
    ]
    renderer = Redacting(
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # What libraries log goes the same way.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # What it warns of is what a transaction that is done again leaves behind (psycopg 3.3: "error
    # ignored terminating Pipeline").
    logging.getLogger("psycopg").setLevel(logging.ERROR)
