#!/usr/bin/env python3
"""Pulls files over HTTP with many connections at once, and prints what came as a JSON document.

Usage: pull.py ADDRESS:PORT CLIENTS SERVER-PID PATH...

Every client asks for all PATHs, each beginning with another one, over one connection. The kernel throws their bytes away
(MSG_TRUNC): what is measured is the server and not what clients do with the bytes. A length or status that is not as
expected is an error, and so is a connection that ends early. The server's peak of memory is read from /proc.
"""

import json
import os
import selectors
import socket
import sys
import time

PIECE = 4 << 20


class Client:
    def __init__(self, address, paths):
        self.paths = paths
        self.left = 0
        self.received = 0
        self.socket = socket.create_connection(address)
        self.ask()

    def ask(self):
        path = self.paths.pop()
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        self.head = b""

    def step(self, buffer):
        """Takes what is there. Gives whether there is more to come."""
        if self.left == 0:
            # The head alone: what follows it is left in the socket.
            peeked = self.socket.recv(4096, socket.MSG_PEEK)
            end = peeked.find(b"\r\n\r\n")
            if end < 0:
                if not peeked:
                    raise OSError("the server closed the connection instead of answering")
                return True
            head = self.socket.recv(end + 4).decode("latin-1").lower().split("\r\n")
            if " 200 " not in head[0] + " ":
                raise OSError(head[0])
            self.left = next(int(line.split(":")[1]) for line in head if line.startswith("content-length:"))
        else:
            got = self.socket.recv_into(buffer, min(self.left, PIECE), socket.MSG_TRUNC)
            if got == 0:
                raise OSError(f"{self.left} bytes are missing")
            self.left -= got
            self.received += got
        if self.left == 0:
            if not self.paths:
                return False
            self.ask()
        return True


def cpu(pid):
    """Seconds of user and system time of a process, and its children that ended."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [pid, *(int(child) for child in file.read().split())]


def peak(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    number, pid, paths = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    processes = family(pid)
    before = sum(cpu(process) for process in processes)
    buffer = bytearray(PIECE)
    selector = selectors.EpollSelector()
    started = time.monotonic()
    clients = []
    for index in range(number):
        start = index % len(paths)
        client = Client((host, int(port)), paths[start:] + paths[:start])
        clients.append(client)
        selector.register(client.socket, selectors.EVENT_READ, client)
    errors = []
    under_way = number
    while under_way:
        ready = selector.select(60)
        if not ready:
            errors.append(f"{under_way} clients got nothing for a minute")
            break
        for key, _ in ready:
            client = key.data
            try:
                goes_on = client.step(buffer)
            except (OSError, StopIteration) as error:
                errors.append(str(error) or "no length")
                goes_on = False
            if not goes_on:
                selector.unregister(client.socket)
                client.socket.close()
                under_way -= 1
    wall = time.monotonic() - started
    received = sum(client.received for client in clients)
    print(
        json.dumps(
            {
                "seconds": round(wall, 2),
                "gigabytes": round(received / 1e9, 2),
                "rate": round(received / 1e9 / wall, 2),
                "errors": len(errors),
                "first": errors[:1],
                "cpu": round(sum(cpu(process) for process in processes) - before, 1),
                "peak": sum(peak(process) for process in processes) >> 20,
            }
        )
    )
    sys.exit(bool(errors))


if __name__ == "__main__":
    main()
