"""`kubectl` over HTTPS with a kubeconfig; what changes nodes is in kubectl_nodes.

Its words and exit codes are kubectl's. What it does not know it refuses.
"""

import base64
import http.client
import json
import os
import re
import ssl
import sys
import time
from urllib.parse import urlsplit

import jsonpath
import kubectl_nodes
import pki
import product
import references
import resources
import yaml_subset

_VALUES = {
    "-n": "namespace",
    "--namespace": "namespace",
    "-o": "output",
    "--output": "output",
    "-f": "filename",
    "--filename": "filename",
    "--raw": "raw",
    "--kubeconfig": "kubeconfig",
    "--cache-dir": "cache-dir",
    "--image": "image",
    "--restart": "restart",
    "--image-pull-policy": "image-pull-policy",
    "--timeout": "timeout",
    "--request-timeout": "timeout",
    "--grace-period": "grace-period",
    "--pod-selector": "pod-selector",
    "--skip-wait-for-delete-timeout": "skip-wait-for-delete-timeout",
    "--type": "type",
    "-p": "patch",
    "--patch": "patch",
}
_SWITCHES = {
    "-A": "all-namespaces",
    "--all-namespaces": "all-namespaces",
    "--ignore-not-found": "ignore-not-found",
    "--command": "command",
    "--wait": "wait",
    "--force": "force",
    "--now": "now",
    "--no-headers": "no-headers",
    "--client": "client",
    "--overwrite": "overwrite",
    "--all": "all",
    "--ignore-daemonsets": "ignore-daemonsets",
    "--delete-emptydir-data": "delete-emptydir-data",
    "--disable-eviction": "disable-eviction",
}
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_DELETE_WAIT = 60


class Problem(Exception):
    """What goes to standard error before exit code 1."""


def run(arguments):
    try:
        words, options, rest = _parse(arguments)
        if not words:
            raise Problem(
                "error: the stand-in's kubectl wants a command: get, apply, create, delete, patch, run, logs, version and those of nodes"
            )
        command = _COMMANDS.get(words[0])
        if command is None:
            raise Problem(f'error: unknown command "{words[0]}" for "kubectl"')
        return command(_Client(options), words[1:], options, rest) or 0
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1


def _parse(arguments):
    words, options, at = [], {}, 0
    while at < len(arguments):
        argument = arguments[at]
        name, equals, value = argument.partition("=")
        at += 1
        if argument == "--":
            return words, options, arguments[at:]
        if name in _SWITCHES:
            options[_SWITCHES[name]] = value != "false"
        elif name in _VALUES:
            if not equals:
                if at == len(arguments):
                    raise Problem(f"error: flag needs an argument: {name}")
                value, at = arguments[at], at + 1
            options.setdefault(_VALUES[name], []).append(value)
        elif argument.startswith("-") and argument != "-":
            raise Problem(f"error: unknown flag: {argument}")
        else:
            words.append(argument)
    return words, options, []


class _Client:
    def __init__(self, options):
        self.namespace = options.get("namespace", ["default"])[-1]
        path = options.get("kubeconfig", [os.environ.get("KUBECONFIG") or product.KUBECONFIG])[-1]
        self.path, self.server, self.context = path, "http://localhost:8080", None

    def connect(self):
        if not os.path.exists(self.path):
            return
        with open(self.path, encoding="utf-8") as stream:
            content = yaml_subset.load(stream.read())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        self.server = cluster["server"]
        self.context = ssl.create_default_context(
            cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
        )
        pair = b"".join(base64.b64decode(user[key]) for key in ("client-certificate-data", "client-key-data"))
        with pki.in_memory(pair) as file:
            self.context.load_cert_chain(file)

    def request(self, method, path, body=None):
        """(status, content) of a request; content is bytes."""
        self.connect()
        server = urlsplit(self.server)
        try:
            if self.context is None:
                raise ConnectionRefusedError
            connection = http.client.HTTPSConnection(server.hostname, server.port, context=self.context, timeout=120)
            connection.request(method, path, body=json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ssl.SSLError as problem:
            raise Problem(f"Unable to connect to the server: tls: failed to verify certificate: {problem}") from problem
        except OSError as problem:
            raise Problem(
                f"The connection to the server {server.netloc} was refused - did you specify the right host or port?"
            ) from problem

    def ask(self, method, path, body=None, doing=""):
        code, content = self.request(method, path, body)
        if code >= 400:
            try:
                status = json.loads(content)
            except ValueError:
                status = {"reason": "Unknown", "message": content.decode()}
            reason = f" ({status['reason']})" if status["reason"] else ""
            raise Problem(f"Error from server{reason}: {doing}{status['message']}")
        return content

    def get(self, path):
        return json.loads(self.ask("GET", path))


def _get(client, words, options, _):
    if "raw" in options:
        sys.stdout.write(client.ask("GET", options["raw"][-1]).decode())
        return 0
    if not words:
        raise Problem(
            'You must specify the type of resource to get. Use "kubectl api-resources" for a complete list of supported resources.\n\n'
            "error: Required resource not specified."
        )
    output = options.get("output", [""])[-1]
    if output not in ("", "json", "name", "wide") and not output.startswith("jsonpath="):
        raise Problem(f'error: the stand-in has no output format "{output}": json, jsonpath, name, wide')
    wanted, problems, found = _wanted(words), [], []
    for plural, name in wanted:
        namespace = "" if options.get("all-namespaces") else client.namespace
        try:
            content = client.get(resources.path_of(plural, namespace, name))
        except Problem as problem:
            if not ("NotFound" in str(problem) and options.get("ignore-not-found")):
                problems.append(str(problem))
            continue
        kind, version, _, _ = resources.KINDS[plural]
        found += [
            (plural, {"apiVersion": version, "kind": kind} | item) for item in ([content] if name else content["items"])
        ]
    kinds = {plural for plural, _ in wanted}
    everywhere = options.get("all-namespaces") or not any(resources.KINDS[plural][2] for plural in kinds)
    _print(
        found,
        output,
        options,
        single=len(wanted) == 1 and bool(wanted[0][1]),
        kinds=len(kinds),
        namespace="" if everywhere else client.namespace,
    )
    if problems:
        raise Problem("\n".join(problems))
    return 0


def _wanted(words):
    """(plural, name or "") for `pods`, `pods a b`, `pod/a cm/b` and `pods,cm`."""
    if "/" in words[0]:
        pairs = [word.partition("/")[::2] for word in words]
    else:
        pairs = [(kind, name) for kind in words[0].split(",") for name in (words[1:] or [""])]
    wanted = []
    for kind, name in pairs:
        plural = resources.plural_of(kind)
        if plural is None:
            raise Problem(f'error: the server doesn\'t have a resource type "{kind}"')
        wanted.append((plural, name))
    return wanted


def _print(found, output, options, single, kinds, namespace):
    if output == "json" or output.startswith("jsonpath="):
        content = (
            found[0][1]
            if single and found
            else {
                "apiVersion": "v1",
                "items": [item for _, item in found],
                "kind": "List",
                "metadata": {"resourceVersion": ""},
            }
        )
        if single and not found:
            return
        if output == "json":
            print(json.dumps(content, indent=4))
        else:
            sys.stdout.write(jsonpath.of(output.partition("=")[2], content))
    elif output == "name":
        for plural, item in found:
            print(resources.display_name(plural, item["metadata"]["name"]))
    elif not found and not single:
        print(f"No resources found in {namespace} namespace." if namespace else "No resources found", file=sys.stderr)
    else:
        for number, plural in enumerate(dict.fromkeys(plural for plural, _ in found)):
            rows = [_row(plural, item, kinds > 1) for item_plural, item in found if item_plural == plural]
            if options.get("all-namespaces"):
                rows = [
                    {"NAMESPACE": item["metadata"].get("namespace", "")} | row for row, (_, item) in zip(rows, found)
                ]
            print(("\n" if number else "") + _table(rows, not options.get("no-headers")))


def _row(plural, item, with_kind):
    name, status = item["metadata"]["name"], item.get("status", {})
    row = {"NAME": resources.display_name(plural, name) if with_kind else name}
    if plural == "pods":
        states = status.get("containerStatuses", [])
        reasons = [next(iter(entry["state"].values())).get("reason") for entry in states]
        restarts = sum(entry["restartCount"] for entry in states)
        ready = sum(entry["ready"] for entry in states)
        row |= {
            "READY": f"{ready}/{len(item['spec']['containers'])}",
            "STATUS": next(filter(None, reasons), status.get("phase", "")),
            "RESTARTS": restarts,
        }
    elif plural == "nodes":
        ready = any(
            condition["type"] == "Ready" and condition["status"] == "True" for condition in status.get("conditions", [])
        )
        roles = [
            label.rpartition("/")[2]
            for label in sorted(item["metadata"]["labels"])
            if label.startswith("node-role.kubernetes.io/")
        ]
        unschedulable = ",SchedulingDisabled" if item.get("spec", {}).get("unschedulable") else ""
        row |= {"STATUS": ("Ready" if ready else "NotReady") + unschedulable, "ROLES": ",".join(roles) or "<none>"}
    elif plural == "namespaces":
        row["STATUS"] = status.get("phase", "Active")
    elif plural == "configmaps":
        row["DATA"] = len(item.get("data") or {})
    elif plural == "serviceaccounts":
        row["SECRETS"] = 0
    created = time.mktime(time.strptime(item["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ"))
    row["AGE"] = f"{max(0, int(time.mktime(time.gmtime()) - created))}s"
    if plural == "nodes":
        row["VERSION"] = status.get("nodeInfo", {}).get("kubeletVersion", "")
    return row


def _table(rows, headers):
    lines = ([list(rows[0])] if headers else []) + [[str(cell) for cell in row.values()] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("   ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _documents(options):
    """(file, object) for each document of the files given by -f: files, folders or - for standard input."""
    for name in options.get("filename") or []:
        if name != "-" and not os.path.exists(name):
            raise Problem(f'error: the path "{name}" does not exist')
        inside = sorted(os.listdir(name)) if os.path.isdir(name) else []
        files = (
            [os.path.join(name, entry) for entry in inside if entry.endswith((".yaml", ".yml", ".json"))]
            if os.path.isdir(name)
            else [name]
        )
        for file in files:
            text = sys.stdin.read() if file == "-" else open(file, encoding="utf-8").read()
            try:
                documents = [json.loads(text)] if text.lstrip().startswith("{") else yaml_subset.load_all(text)
            except (yaml_subset.YamlError, ValueError) as problem:
                raise Problem(
                    f"error: error parsing {'STDIN' if file == '-' else file}: error converting YAML to JSON: {problem}"
                ) from problem
            for document in documents:
                for item in document["items"] if str(document.get("kind")) == "List" else [document]:
                    yield "STDIN" if file == "-" else file, item


def _place(client, file, item):
    """(plural, namespace, name) of an object in a file."""
    plural = resources.plural_of(str(item.get("kind")))
    if plural is None:
        raise Problem(
            f'error: resource mapping not found for name: "{item.get("metadata", {}).get("name", "")}" namespace: "" from "{file}": '
            f'no matches for kind "{item.get("kind")}" in version "{item.get("apiVersion")}"\nensure CRDs are installed first'
        )
    namespaced = resources.KINDS[plural][2]
    return plural, (item["metadata"].get("namespace", client.namespace) if namespaced else ""), item["metadata"]["name"]


def _for_each_document(client, options, action):
    problems, any_document = [], False
    for file, item in _documents(options):
        any_document = True
        try:
            action(file, item, *_place(client, file, item))
        except Problem as problem:
            problems.append(str(problem))
    if problems:
        raise Problem("\n".join(problems))
    if not any_document:
        raise Problem(
            "error: must specify one of -f and -k"
            if not options.get("filename")
            else "error: no objects passed to apply"
        )


def _apply(client, _, options, __):
    def action(file, item, plural, namespace, name):
        path, applied = resources.path_of(plural, namespace, name), json.dumps(item, sort_keys=True)
        code, content = client.request("GET", path)
        item = item | {
            "metadata": item["metadata"]
            | {"annotations": (item["metadata"].get("annotations") or {}) | {_LAST_APPLIED: applied}}
        }
        if code == 404:
            client.ask("POST", resources.path_of(plural, namespace), item, f'error when creating "{file}": ')
            done = "created"
        elif code == 200 and json.loads(content)["metadata"].get("annotations", {}).get(_LAST_APPLIED) == applied:
            done = "unchanged"
        else:
            client.ask("PUT", path, item, f'error when applying patch to "{file}": ')
            done = "configured"
        print(f"{resources.display_name(plural, name)} {done}", flush=True)

    _for_each_document(client, options, action)


def _create(client, words, options, _):
    if len(words) == 2 and resources.plural_of(words[0]) == "namespaces":
        client.ask(
            "POST", resources.path_of("namespaces"), {"metadata": {"name": words[1]}, "status": {"phase": "Active"}}
        )
        print(f"namespace/{words[1]} created")
        return

    def action(file, item, plural, namespace, name):
        client.ask("POST", resources.path_of(plural, namespace), item, f'error when creating "{file}": ')
        print(f"{resources.display_name(plural, name)} created", flush=True)

    _for_each_document(client, options, action)


def _delete(client, words, options, _):
    def delete(plural, namespace, name, doing=""):
        path = resources.path_of(plural, namespace, name)
        code, _ = client.request("GET", path)
        if code == 404 and options.get("ignore-not-found"):
            return
        grace = options.get("grace-period", [""])[-1]
        client.ask("DELETE", path + ("?gracePeriodSeconds=0" if grace == "0" else ""), doing=doing)
        print(f'{resources.display_name(plural, name).partition("/")[0]} "{name}" deleted', flush=True)
        if options.get("wait", True):
            _wait_gone(client, path, options)

    if options.get("filename"):
        _for_each_document(
            client,
            options,
            lambda file, item, plural, namespace, name: delete(
                plural, namespace, name, f'error when deleting "{file}": '
            ),
        )
        return
    problems = []
    for plural, name in _wanted(words) if words else []:
        try:
            delete(plural, client.namespace, name)
        except Problem as problem:
            problems.append(str(problem))
    if problems:
        raise Problem("\n".join(problems))


def _wait_gone(client, path, options):
    """Until the object is gone, or another of its name is there; gives up after --timeout."""
    code, content = client.request("GET", path)
    uid = json.loads(content)["metadata"]["uid"] if code == 200 else None
    limit = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s?)?", options.get("timeout", ["0"])[-1])
    seconds = (int(limit[1] or 0) * 60 + int(limit[2] or 0)) if limit else 0
    deadline = time.monotonic() + (seconds or _DELETE_WAIT)
    while code == 200 and json.loads(content)["metadata"]["uid"] == uid:
        if time.monotonic() > deadline:
            if seconds:
                raise Problem(f"error: timed out waiting for the condition on {path.rpartition('/')[2]}")
            return
        time.sleep(0.2)
        code, content = client.request("GET", path)


def _patch(client, words, options, _):
    if options.get("type") != ["merge"]:
        raise Problem("error: the stand-in patches by --type merge alone")
    for plural, name in _wanted(words):
        patch = json.loads(options["patch"][-1])
        client.ask("PATCH", resources.path_of(plural, client.namespace, name), patch)
        print(f"{resources.display_name(plural, name)} patched")


def _run(client, words, options, rest):
    if "image" not in options:
        raise Problem('error: required flag(s) "image" not set')
    container = {"name": words[0], "image": options["image"][-1]}
    try:
        references.parse(container["image"])
    except ValueError as problem:
        raise Problem(f'error: Invalid image name "{container["image"]}": {problem}') from problem
    if rest:
        container["command" if options.get("command") else "args"] = rest
    if "image-pull-policy" in options:
        container["imagePullPolicy"] = options["image-pull-policy"][-1]
    pod = {
        "metadata": {"name": words[0], "labels": {"run": words[0]}},
        "spec": {"containers": [container], "restartPolicy": options.get("restart", ["Always"])[-1]},
    }
    client.ask("POST", resources.path_of("pods", client.namespace), pod)
    print(f"pod/{words[0]} created")


def _logs(client, words, _, __):
    name = words[0].rpartition("/")[2] if words else ""
    sys.stdout.write(client.ask("GET", resources.path_of("pods", client.namespace, name) + "/log").decode())


def _version(client, _, options, __):
    print(f"Client Version: {product.KUBERNETES}\nKustomize Version: v5.4.2", flush=True)
    if not options.get("client"):
        print("Server Version: " + json.loads(client.ask("GET", "/version"))["gitVersion"])


def _on_nodes(command, helper):
    return lambda client, words, options, rest: command(client, words, options, rest, Problem, helper)


_COMMANDS = {
    "annotate": _on_nodes(kubectl_nodes.note("annotations", "annotated"), _wanted),
    "label": _on_nodes(kubectl_nodes.note("labels", "labeled"), _wanted),
    "taint": _on_nodes(kubectl_nodes.taint, _wanted),
    "cordon": _on_nodes(kubectl_nodes.cordon(True), None),
    "uncordon": _on_nodes(kubectl_nodes.cordon(False), None),
    "drain": _on_nodes(kubectl_nodes.drain, _wait_gone),
    "get": _get,
    "apply": _apply,
    "create": _create,
    "delete": _delete,
    "patch": _patch,
    "run": _run,
    "logs": _logs,
    "version": _version,
}
