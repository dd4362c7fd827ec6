#!/usr/bin/env python3
"""Makes a payload of real files for the benchmark: programs, libraries, text and scripts of this machine's /usr.

Usage: payload.py FOLDER BYTES

FOLDER gets `bin`, `lib`, `share` and `scripts`, BYTES in all. Where /usr has too little of a kind, its files come
again below `again-2`, `again-3`, ...: far enough apart that no packer sees that they are the same.
"""

import itertools
import os
import shutil
import stat
import sys

# Each kind's part of the whole: about what a Kubernetes distribution's rootfs holds.
SHARES = {"bin": 0.45, "lib": 0.43, "share": 0.10, "scripts": 0.02}


def kind_of(path, mode):
    """The folder that a file belongs to, or None if it is neither a program, nor a library, nor text."""
    with open(path, "rb") as file:
        start = file.read(2048)
    if start.startswith(b"\x7fELF"):
        return "bin" if mode & 0o111 and ".so" not in os.path.basename(path) else "lib"
    if start.startswith(b"#!"):
        return "scripts"
    if b"\0" in start:
        return None
    try:
        start.decode()
    except UnicodeDecodeError as error:
        # A character that the end of `start` cuts in two is still text.
        return "share" if error.start > len(start) - 4 else None
    return "share"


def candidates():
    """All regular files below /usr that are of a kind: kind -> [(path, size)], in the order of their paths."""
    found = {kind: [] for kind in SHARES}
    for folder, folders, names in os.walk("/usr"):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            try:
                status = os.lstat(path)
                if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
                    continue
                path.encode("utf-8")
                kind = kind_of(path, status.st_mode)
            except (OSError, UnicodeEncodeError):
                continue
            if kind:
                found[kind].append((path, status.st_size))
    return found


def fill(folder, files, wanted):
    """Copies files into `folder` until it holds `wanted` bytes; returns how many files and bytes it got."""
    # One huge file must not be the whole payload.
    files = [(path, size) for path, size in files if size <= max(wanted // 4, 64 << 10)]
    count = written = 0
    if not files:
        return count, written
    for turn in itertools.count(1):
        for path, size in files:
            if written >= wanted:
                return count, written
            prefix = "" if turn == 1 else f"again-{turn}"
            target = os.path.join(folder, prefix, os.path.relpath(path, "/usr"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(path, target)
            os.chmod(target, 0o755 if os.stat(path).st_mode & 0o111 else 0o644)
            count, written = count + 1, written + size


def main():
    folder, wanted = sys.argv[1], int(sys.argv[2])
    found = candidates()
    files = total = 0
    for kind, share in SHARES.items():
        count, written = fill(os.path.join(folder, kind), found[kind], int(wanted * share))
        files, total = files + count, total + written
    print(f"{files} files, {total / 2**20:.0f} MiB")


main()
