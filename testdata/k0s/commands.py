"""The commands that look and change from outside of the k0s that runs."""

import base64
import json
import os
import time

import config as configuration
import containerd
import flags
import kubectl as kubectl_command
import product
import status as socket_of
import tokens
import web
from etcd import ask_members
from database import Unavailable
from host import Stop
from peers import Refusal, Tls


def version(arguments):
    settings, _ = flags.parse("version", arguments)
    print(json.dumps({"k0s": product.VERSION}) if settings.get("json") else product.VERSION)


def status(arguments):
    settings, _ = flags.parse("status", arguments)
    found, form = socket_of.ask(), settings.get("out", "")
    if form == "json":
        print(json.dumps(found, indent=3))
        return
    if form:
        raise Stop(f"the stand-in has no output {form}: json")
    print(f"Version: {found['Version']}\nProcess ID: {found['Pid']}\nRole: {found['Role']}")
    print(f"Workloads: {str(found['Workloads']).lower()}\nSingleNode: {str(found['SingleNode']).lower()}")
    if found["Workloads"]:
        print("Kube-api probing successful: true\nKube-api probing last error:  ")


def config(arguments):
    if arguments[:1] != ["validate"]:
        raise Stop(f"the stand-in has no command config {' '.join(arguments[:1])}: validate")
    settings, _ = flags.parse("config validate", arguments[1:])
    if "config" not in settings:
        raise Stop('required flag(s) "config" not set')
    configuration.load(settings["config"])


def airgap(arguments):
    if arguments[:1] != ["list-images"]:
        raise Stop(f"the stand-in has no command airgap {' '.join(arguments[:1])}: list-images")
    settings, _ = flags.parse("airgap list-images", arguments[1:])
    found = configuration.load(settings.get("config", configuration.FILE), "config" in settings)
    print("\n".join(found.images(settings.get("all"))))


def kubectl(arguments):
    given = any(word.split("=")[0] == "--kubeconfig" for word in arguments)
    if not given and "KUBECONFIG" not in os.environ and not os.path.exists(product.KUBECONFIG):
        raise Stop(
            f"cannot stat k0s kubeconfig, is the server running?: stat {product.KUBECONFIG}: no such file or directory"
        )
    return kubectl_command.run(arguments)


def ctr(arguments):
    if not os.path.exists(product.SOCKET):
        raise Stop(f"cannot access socket {product.SOCKET}: stat {product.SOCKET}: no such file or directory")
    containerd.exec_ctr(arguments)


# -------------------------------------------------- etcd


def etcd(arguments):
    commands = {"leave": _leave, "member-list": _members}
    if not arguments or arguments[0] not in commands:
        raise Stop(f"the stand-in has no command etcd {' '.join(arguments[:1])}: leave, member-list")
    settings, _ = flags.parse(f"etcd {arguments[0]}", arguments[1:])
    commands[arguments[0]](settings)


def _members(_):
    found = _ask({"do": "members"}, "can't list etcd cluster members")
    members = {name: member["url"] for name, member in found.items()}
    print(json.dumps({"members": members}, separators=(",", ":")))


def _leave(settings):
    address = settings.get("peer-address")
    if not address:
        raise Stop("the stand-in wants --peer-address")
    url, failed = f"https://{address}:2380", "can't connect to the etcd"
    names = [name for name, member in _ask({"do": "members"}, failed).items() if member["url"] == url]
    if not names:
        raise Stop(f"peer not found: {url}")
    try:
        _ask({"do": "remove", "name": names[0]}, failed)
    except Refusal as problem:
        raise Stop(str(problem)) from problem


def _ask(message, failed):
    """Waits for ever where etcd does not answer, as the real one does."""
    client, authority = product.PKI + "/apiserver-etcd-client", product.PKI + "/etcd/ca.crt"
    for file in (client + ".crt", client + ".key", authority):
        if not os.path.exists(file):
            raise Stop(f"{failed}: open {file}: no such file or directory")
    while True:
        try:
            return ask_members(["https://127.0.0.1:2379"], Tls(client + ".crt", client + ".key", authority), message)
        except Unavailable:
            time.sleep(1)


# -------------------------------------------------- tokens


def token(arguments):
    if arguments[:1] != ["list"]:
        raise Stop(f"the stand-in has no command token {' '.join(arguments[:1])}: list")
    settings, _ = flags.parse("token list", arguments[1:])
    role = settings.get("role", "")
    if role not in ("controller", "worker"):
        raise Stop(f'unsupported role "{role}"; supported roles are "controller" and "worker"')
    socket_of.ask()
    access = tokens.access(product.KUBECONFIG)
    secrets = json.loads(web.get(access.server + "/api/v1/namespaces/kube-system/secrets", access.context))["items"]
    usage = "usage-bootstrap-authentication" if role == "worker" else "usage-controller-join"
    rows = [("ID", "ROLE", "EXPIRES AT")]
    for secret in secrets:
        content = {key: base64.b64decode(value).decode() for key, value in secret.get("data", {}).items()}
        if secret.get("type") == "bootstrap.kubernetes.io/token" and content.get(usage) == "true":
            rows.append((content["token-id"], role, content.get("expiration", "")))
    if len(rows) == 1:
        print("No k0s join tokens found")
        return
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
