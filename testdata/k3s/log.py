"""Log lines as k3s writes them: logrus' text format on standard error."""

import json
import sys
import time


def _write(level, message):
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sys.stderr.write(f'time="{now}" level={level} msg={json.dumps(message, ensure_ascii=False)}\n')
    sys.stderr.flush()


def info(message):
    _write("info", message)


def warning(message):
    _write("warning", message)


def error(message):
    _write("error", message)


def write_fatal(message):
    _write("fatal", message)


def fatal(message):
    write_fatal(message)
    raise SystemExit(1)
