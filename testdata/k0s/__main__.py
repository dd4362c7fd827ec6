"""A stand-in for k0s, for tests on machines where no k0s is to be had.

It accepts and refuses what k0s v1.36 does, in its words, reads and writes the same files, and runs containers by
Debian's containerd. See README.md for what it does not do.
"""

import os
import sys

import commands
import controller
import worker
from host import Stop

_COMMANDS = {
    "airgap": commands.airgap,
    "config": commands.config,
    "controller": controller.run,
    "ctr": commands.ctr,
    "etcd": commands.etcd,
    "kc": commands.kubectl,
    "kubectl": commands.kubectl,
    "server": controller.run,
    "status": commands.status,
    "token": commands.token,
    "version": commands.version,
    "worker": worker.run,
}


def main():
    called, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
    if called in ("kubectl", "ctr"):
        arguments = [called, *arguments]
    if not arguments:
        print("k0s - The zero friction Kubernetes (a stand-in for tests)\n\nUsage:\n  k0s [command]")
        return 0
    command = _COMMANDS.get(arguments[0])
    try:
        if command is None:
            raise Stop(f'unknown command "{arguments[0]}" for "k0s"')
        return command(arguments[1:]) or 0
    except Stop as problem:
        print(f"Error: {problem}", file=sys.stderr, flush=True)
        return 1


sys.exit(main())
