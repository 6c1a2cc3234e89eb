"""How log records are written: JSON for machines, readable lines for people."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

_FIELDS = ("request", "route", "peer", "reason")


def configure(level: str, format: Literal["json", "text"]) -> None:
    """Sends all log records, warnings too, to standard error, one a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    # At level info it tells each save, and what follows from one is told anyway.
    logging.getLogger("watchfiles").setLevel(max(logging.WARNING, root.level))


class JsonFormatter(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= _extra(record)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)  # in ASCII: whatever the message holds and the stream can encode


class TextFormatter(logging.Formatter):
    """Time, level and message; then what else is known, as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.levelname.lower():7} "
        text += " ".join([record.getMessage(), *(f"{key}={value}" for key, value in _extra(record).items())])
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _extra(record: logging.LogRecord) -> dict[str, str]:
    return {field: str(getattr(record, field)) for field in _FIELDS if hasattr(record, field)}
