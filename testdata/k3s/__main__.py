"""A stand-in for k3s, for tests on machines where no k3s is to be had.

It accepts and refuses what k3s v1.31 does, in its words, reads and writes the same files, and runs
containers by Debian's containerd. See README.md for what it does not do.
"""

import os
import sys

import agent
import containerd
import crictl
import kubectl
import product
import server


def main():
    called = os.path.basename(sys.argv[0])
    arguments = sys.argv[1:]
    if called in ("kubectl", "crictl", "ctr"):
        arguments = [called, *arguments]
    command, rest = (arguments[0], arguments[1:]) if arguments else ("help", [])
    if command == "server":
        server.run(rest)
    elif command == "agent":
        agent.run(rest)
    elif command == "kubectl":
        sys.exit(kubectl.run(rest))
    elif command == "crictl":
        sys.exit(crictl.run(rest))
    elif command == "ctr":
        containerd.exec_ctr(rest)
    elif command in ("--version", "-v"):
        print(f"k3s version {product.VERSION} ({product.REVISION})\ngo version go1.22.8")
    elif command in ("help", "--help", "-h"):
        print(
            "NAME:\n   k3s - Kubernetes, but small and simple (a stand-in for tests)\n\nUSAGE:\n   k3s server|agent|kubectl|crictl|ctr [OPTIONS]"
        )
    else:
        print(f"No help topic for '{command}'", file=sys.stderr)
        sys.exit(3)


main()
