"""The flags of k0s's commands: those of v1.36, by type. Few of them change what this stand-in does; all of them decide
what it refuses."""

import re

from host import Stop

_GLOBAL = {"bool": "debug,d help,h verbose,v", "string": "debugListenOn"}
_PLACES = {"string": "data-dir status-socket"}
_WORKER = {
    "bool": "enable-cloud-provider ignore-pre-flight-checks",
    "list": "taints",
    "map": "labels logging,l",
    "string": "cri-socket data-dir iptables-mode kubelet-extra-args kubelet-root-dir profile status-socket token-file",
}
_CONTROLLER = {
    "bool": """
        enable-dynamic-config enable-k0s-cloud-provider enable-metrics-scraper enable-worker init-only no-taints single
    """,
    "duration": "api-server-stop-timeout k0s-cloud-provider-update-frequency",
    "int": "k0s-cloud-provider-port",
    "list": "disable-components",
    "map": "feature-gates",
    "string": "config,c kube-controller-manager-extra-args",
}
_TABLES = {
    "airgap list-images": [{"bool": "all", "string": "config,c platform"}, _PLACES],
    "config validate": [{"string": "config,c", "map": "feature-gates"}],
    "controller": [_CONTROLLER, _WORKER],
    "etcd leave": [{"string": "peer-address"}, _PLACES],
    "etcd member-list": [_PLACES],
    "status": [{"string": "out,o status-socket"}],
    "token list": [{"string": "role"}, _PLACES],
    "version": [{"bool": "all,a json,j"}],
    "worker": [_WORKER],
}


def parse(command, arguments):
    """(settings by long name, what is no flag). Raises Stop."""
    names = {}
    for table in [*_TABLES[command], _GLOBAL]:
        for kind, entries in table.items():
            for entry in entries.split():
                long, _, short = entry.partition(",")
                names[f"--{long}"] = (long, kind)
                if short:
                    names[f"-{short}"] = (long, kind)
    values, words, rest = {}, [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-") or argument == "-":
            words.append(argument)
            continue
        flag, equals, value = argument.partition("=")
        if flag not in names and not flag.startswith("--") and flag[:2] in names:
            flag, equals, value = flag[:2], "=", argument[2:].removeprefix("=")
        if flag not in names:
            raise Stop(
                f"unknown flag: {flag}"
                if flag.startswith("--")
                else f"unknown shorthand flag: '{flag[1]}' in {argument}"
            )
        long, kind = names[flag]
        if not equals:
            if kind == "bool":
                value = "true"
            elif not rest:
                raise Stop(f"flag needs an argument: {flag}")
            else:
                value = rest.pop(0)
        value = _typed(flag, kind, value)
        if kind == "list":
            value = values.get(long, []) + value
        elif kind == "map":
            value = values.get(long, {}) | value
        values[long] = value
    return values, words


def _typed(flag, kind, value):
    if kind == "bool":
        if value not in ("1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"):
            raise Stop(f'invalid argument "{value}" for "{flag}" flag: strconv.ParseBool: parsing "{value}": invalid syntax')
        return value.lower() in ("1", "t", "true")
    if kind == "int":
        if not re.fullmatch(r"-?[0-9]+", value):
            raise Stop(f'invalid argument "{value}" for "{flag}" flag: strconv.ParseInt: parsing "{value}": invalid syntax')
        return int(value)
    if kind == "duration" and not re.fullmatch(r"([0-9.]+(ns|us|ms|s|m|h))+|0", value):
        raise Stop(f'invalid argument "{value}" for "{flag}" flag: time: invalid duration "{value}"')
    if kind == "list":
        return [item for item in value.split(",") if item]
    if kind == "map":
        pairs = [item.partition("=") for item in value.split(",") if item]
        for name, equals, _ in pairs:
            if not equals:
                raise Stop(f'invalid argument "{value}" for "{flag}" flag: {name} must be formatted as key=value')
        return {name: text for name, _, text in pairs}
    return value
