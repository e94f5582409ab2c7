"""Nothing secret in a log line.

Records are cleaned when they are made (a log record factory), so that every handler, whoever adds it, gets clean
text: message with its arguments, traceback and stack. `configure_logging` is Django's LOGGING_CONFIG.
"""

from __future__ import annotations

import logging
import logging.config
from typing import Any

from endpoints.redaction import redact
from proxy.request_id import current_request


def clean_record(record: logging.LogRecord) -> None:
    """Take every secret out of a record: its text, its traceback, its stack."""
    try:
        text = record.getMessage()
    except Exception as error:  # noqa: BLE001 - a log call must not raise, nor its arguments be shown
        format_string = record.msg if isinstance(record.msg, str) else ""
        text = f"{format_string} (its arguments do not fit: {type(error).__name__})"
        record.msg, record.args = text, ()
    clean = redact(text)
    if clean != text:
        _replace_text(record, clean)
    if record.exc_info and record.exc_info[0] is not None:
        _clean_traceback(record)
    if record.stack_info:
        record.stack_info = redact(record.stack_info)


def _replace_text(record: logging.LogRecord, clean: str) -> None:
    """Put the clean text in; arguments stay where cleaning each is enough, since some formatters read them."""
    if isinstance(record.args, tuple) and isinstance(record.msg, str):
        record.args = tuple(redact(each) if isinstance(each, str) else each for each in record.args)
        if record.args and record.getMessage() == clean:
            return
    record.msg, record.args = clean, ()


def _clean_traceback(record: logging.LogRecord) -> None:
    text = _formatter.formatException(record.exc_info)  # type: ignore[arg-type]
    record.exc_text = redact(text)
    if record.exc_text != text:
        # A handler that looks at the exception itself would find the secret in it.
        record.exc_info = None


_formatter = logging.Formatter()


class _CleanRecords:
    """A log record factory around another one; it also notes which request a record belongs to."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._inner(*args, **kwargs)
        clean_record(record)
        record.request_id = redact(current_request.get())
        return record


def install() -> None:
    """Clean every record this process makes from now on."""
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _CleanRecords):
        logging.setLogRecordFactory(_CleanRecords(factory))


def configure_logging(config: dict[str, Any]) -> None:
    """Django's LOGGING_CONFIG: `logging.config.dictConfig`, with every record cleaned."""
    install()
    logging.config.dictConfig(config)
