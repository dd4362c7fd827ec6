#!/usr/bin/env python3
"""Runs a command once and appends what it cost to a file, a JSON document a line.

Usage: measure.py RESULTS LOG JOB PROGRAM PATH COMMAND...

  wall      seconds from start to end
  cpu       seconds of user and system time of the command and all that it waited for
  peak      largest resident set of any one process of it, bytes (this program's own 10 MiB or so are its floor)
  written   bytes that it and all that it waited for made the disk write (`write_bytes` of /proc/PID/io)
  result    bytes on disk that PATH has afterwards and had not before
  others    cores that everything else on the machine kept busy meanwhile
"""

import json
import os
import subprocess
import sys
import time


def allocated(path):
    """Bytes that a file or a folder takes on the disk; hard links count once."""
    seen = {}
    for folder, _, names in os.walk(path) if os.path.isdir(path) else [(os.path.dirname(path), [], [path])]:
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def busy():
    """Seconds that all cores were busy since boot."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq = (int(word) for word in file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def written():
    """Bytes that this process and those that it waited for wrote; 0 where the kernel does not count them."""
    try:
        with open("/proc/self/io", encoding="ascii") as file:
            lines = dict(line.split(": ") for line in file)
        return int(lines["write_bytes"])
    except (OSError, KeyError):
        return 0


def main():
    results, log, job, program, path = sys.argv[1:6]
    before = {"result": allocated(path), "busy": busy(), "written": written()}
    with open(log, "w", encoding="utf-8") as output:
        started = time.monotonic()
        child = subprocess.Popen(sys.argv[6:], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - started
    if os.waitstatus_to_exitcode(status) != 0:
        print(f"{job}: {program} failed; its output is in {log}:", file=sys.stderr)
        with open(log, encoding="utf-8", errors="replace") as output:
            sys.exit(output.read()[-4000:])
    cpu = usage.ru_utime + usage.ru_stime
    sample = {
        "job": job,
        "program": program,
        "wall": wall,
        "cpu": cpu,
        "peak": usage.ru_maxrss * 1024,
        "written": written() - before["written"],
        "result": allocated(path) - before["result"],
        "others": max(0.0, (busy() - before["busy"] - cpu) / wall),
    }
    with open(results, "a", encoding="utf-8") as file:
        file.write(json.dumps(sample) + "\n")


main()
