"""Log lines in logrus' text format on standard error."""

import json
import re
import sys
import time


def _write(level, message, fields):
    more = "".join(f" {name}={_value(value)}" for name, value in fields.items())
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sys.stderr.write(f'time="{now}" level={level} msg={_quoted(message)}{more}\n')
    sys.stderr.flush()


def _quoted(text):
    return json.dumps(text, ensure_ascii=False)


def _value(value):
    text = str(value)
    return text if re.fullmatch(r"[A-Za-z0-9._/@^+-]+", text) else _quoted(text)


def info(message, **fields):
    _write("info", message, fields)


def warning(message, **fields):
    _write("warning", message, fields)


def error(message, **fields):
    _write("error", message, fields)


def write_fatal(message):
    _write("fatal", message, {})


def fatal(message):
    write_fatal(message)
    raise SystemExit(1)
