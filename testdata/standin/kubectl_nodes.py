"""`kubectl` on nodes: label, annotate, taint, cordon, uncordon, drain."""

import json

import resources


def _change(client, problem, plural, name, change):
    """Reads, changes and writes back until nobody came in between."""
    path = resources.path_of(plural, client.namespace, name)
    while True:
        item = client.get(path)
        change(item)
        code, content = client.request("PUT", path, item)
        if code == 409:
            continue
        if code >= 400:
            raise problem(f"Error from server: {json.loads(content)['message']}")
        return


def _targets(client, problem, words, options, wanted):
    """([(plural, name)], the words that follow)."""
    names = 1 if "/" in words[0] else 2
    rest = [word for word in words[names:] if "=" in word or word.endswith("-")]
    found = wanted(words[: len(words) - len(rest)])
    if options.get("all"):
        found = [
            (plural, item["metadata"]["name"])
            for plural, _ in found
            for item in client.get(resources.path_of(plural, client.namespace))["items"]
        ]
    if not rest or any(not name for _, name in found):
        raise problem("error: resource(s) were provided, but no name was specified")
    return found, rest


def note(field, done):
    """label and annotate, which differ in where they write."""

    def run(client, words, options, _, problem, wanted):
        found, pairs = _targets(client, problem, words, options, wanted)
        for plural, name in found:

            def change(item):
                values = item["metadata"].setdefault(field, {})
                for pair in pairs:
                    key, equals, value = pair.partition("=")
                    if not equals:
                        values.pop(key.removesuffix("-"), None)
                    elif values.get(key, value) != value and not options.get("overwrite"):
                        raise problem(
                            f"error: '{key}' already has a value ({values[key]}), and --overwrite is false"
                            if field == "labels"
                            else f"error: --overwrite is false but found the following declared annotation(s): '{key}' "
                            f"already has a value ({values[key]})"
                        )
                    else:
                        values[key] = value

            _change(client, problem, plural, name, change)
            print(f"{resources.display_name(plural, name)} {done}")

    return run


def taint(client, words, options, _, problem, wanted):
    split = next((at for at, word in enumerate(words) if ":" in word or word.endswith("-")), len(words))
    if split == len(words):
        raise problem("error: at least one taint update is required")
    for plural, name in wanted(words[:split]):
        for word in words[split:]:
            text, gone = word.removesuffix("-"), word.endswith("-")
            pair, _, effect = text.partition(":")
            key, _, value = pair.partition("=")

            def change(item):
                taints = item.setdefault("spec", {}).get("taints", [])
                same = [old for old in taints if old["key"] == key and effect in ("", old["effect"])]
                if gone and not same:
                    raise problem(f'error: taint "{text}" not found')
                if not gone and same and not options.get("overwrite"):
                    raise problem(
                        f"error: node {name} already has {key} taint(s) with same effect(s) and --overwrite is false"
                    )
                new = [] if gone else [{"key": key, "effect": effect} | ({"value": value} if value else {})]
                item["spec"]["taints"] = [old for old in taints if old not in same] + new

            _change(client, problem, plural, name, change)
        print(f"node/{name} {'untainted' if words[-1].endswith('-') else 'tainted'}")


_CORDONED = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


def cordon(wish):
    def run(client, words, _, __, problem, ___):
        for word in words:
            _cordon(client, problem, word.rpartition("/")[2], wish)

    return run


def _cordon(client, problem, name, wish):
    word = "cordoned" if wish else "uncordoned"
    if bool(client.get(resources.path_of("nodes", "", name))["spec"].get("unschedulable")) == wish:
        print(f"node/{name} already {word}")
        return

    def change(item):
        spec = item.setdefault("spec", {})
        taints = [old for old in spec.get("taints", []) if old["key"] != _CORDONED["key"]]
        spec["taints"] = taints + ([_CORDONED] if wish else [])
        spec["unschedulable"] = wish

    _change(client, problem, "nodes", name, change)
    print(f"node/{name} {word}")


def drain(client, words, options, _, problem, wait_gone):
    if not words:
        raise problem("error: USAGE: drain NODE [flags]")
    for word in words:
        name = word.rpartition("/")[2]
        _cordon(client, problem, name, True)
        pods = [
            pod
            for pod in client.get(resources.path_of("pods"))["items"]
            if pod["spec"].get("nodeName") == name
        ]
        owners = {pod["metadata"]["uid"]: pod["metadata"].get("ownerReferences", []) for pod in pods}
        daemons = [pod for pod in pods if any(o["kind"] == "DaemonSet" for o in owners[pod["metadata"]["uid"]])]
        bare = [pod for pod in pods if not owners[pod["metadata"]["uid"]]]
        local = [pod for pod in pods if any("emptyDir" in volume for volume in pod["spec"].get("volumes", []))]
        refusals = []
        if local and not options.get("delete-emptydir-data"):
            refusals.append(f"cannot delete Pods with local storage (use --delete-emptydir-data to override): {_names(local)}")
        if bare and not options.get("force"):
            refusals.append(f"cannot delete Pods that declare no controller (use --force to override): {_names(bare)}")
        if daemons and not options.get("ignore-daemonsets"):
            refusals.append(
                f"cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): {_names(daemons)}"
            )
        if refusals:
            text = ", ".join(refusals)
            raise problem(
                f'error: unable to drain node "{name}" due to error: [{text}], continuing command...\n'
                f"There are pending nodes to be drained:\n {name}\n" + "\n".join(refusals)
            )
        if bare:
            print(f"Warning: deleting Pods that declare no controller: {_names(bare)}")
        for pod in pods:
            if pod in daemons:
                continue
            namespace, pod_name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            print(f"evicting pod {namespace}/{pod_name}", flush=True)
            path = resources.path_of("pods", namespace, pod_name)
            client.ask("POST", path + "/eviction", {})
            wait_gone(client, path, options)
            print(f"pod/{pod_name} evicted", flush=True)
        print(f"node/{name} drained")


def _names(pods):
    return ", ".join(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in pods)
