"""One line for each request and event: JSON for programs, or text for people."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("clever_hub.serve")
_FIELDS = "fields"


def event(level: int, message: str, **fields: Any) -> None:
    """Log an event.

    Args:
        level: Of ``logging``.
        message: What happened; the same for every event of its kind.
        **fields: What differs between them; plain JSON.
    """
    LOGGER.log(level, message, extra={_FIELDS: fields})


class Lines(logging.Formatter):
    """Formats a record as one line.

    Args:
        as_json: JSON; else text.

    Example:
        >>> record = logging.LogRecord("a", logging.INFO, "", 0, "started", (), None)
        >>> record.fields = {"port": 8000}
        >>> json.loads(Lines(as_json=True).format(record))["port"]
        8000
    """

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = dict(getattr(record, _FIELDS, {}))
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        level, message = record.levelname.lower(), record.getMessage()
        if self._as_json:
            head = {"time": time, "level": level, "message": message}
            return json.dumps(head | fields, default=str)
        # A client's text must not begin a line of its own.
        shown = " ".join(f"{key}={value!r}" for key, value in fields.items() if key != "error")
        error = f"\n{fields['error']}" if "error" in fields else ""
        return f"{time} {level} {message} {shown}{error}"


def set_up(level: str, as_json: bool) -> None:
    """Send what the server and uvicorn log to stderr; called by the command, never by an import.

    Args:
        level: Name of the least level, such as ``"info"``.
        as_json: JSON lines; else text.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(as_json))
    ours = logging.getLevelName(level.upper())
    # What uvicorn says below a warning repeats ours, about itself.
    theirs = ours if ours <= logging.DEBUG else max(ours, logging.WARNING)
    for logger, least in ((LOGGER, ours), (logging.getLogger("uvicorn"), theirs)):
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(least)
