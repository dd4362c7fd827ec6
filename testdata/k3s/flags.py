"""The flags of `k3s server` and `k3s agent`: what is accepted from the command line, config.yaml and the environment.

The tables are those of k3s v1.31 by type, each entry "name[,alias][=$VARIABLE]". Few of them change
what this stand-in does; all of them decide what it refuses.
"""

import os
import re

import log
import yaml_subset

CONFIG_FILE = "/etc/rancher/k3s/config.yaml"
_SERVER = {
    "bool": """
        alsologtostderr cluster-init=$K3S_CLUSTER_INIT cluster-reset=$K3S_CLUSTER_RESET debug=$K3S_DEBUG disable-agent
        disable-apiserver disable-cloud-controller disable-controller-manager disable-default-registry-endpoint
        disable-etcd disable-helm-controller disable-kube-proxy disable-network-policy disable-scheduler docker
        embedded-registry enable-pprof etcd-disable-snapshots etcd-expose-metrics etcd-s3 etcd-s3-insecure
        etcd-s3-skip-ssl-verify etcd-snapshot-compress flannel-external-ip flannel-ipv6-masq kine-tls nonroot-devices
        prefer-bundled-bin protect-kernel-defaults rootless secrets-encryption selinux=$K3S_SELINUX supervisor-metrics
        tls-san-security with-node-id
    """,
    "int": """
        advertise-port etcd-snapshot-retention https-listen-port lb-server-port=$K3S_LB_SERVER_PORT v
    """,
    "list": """
        airgap-extra-registry cluster-cidr cluster-dns disable etcd-arg kube-apiserver-arg kube-cloud-controller-arg
        kube-cloud-controller-manager-arg kube-controller-arg kube-controller-manager-arg kube-proxy-arg
        kube-scheduler-arg kubelet-arg node-external-dns node-external-ip node-internal-dns node-ip,i node-label
        node-taint service-cidr tls-san
    """,
    "string": """
        advertise-address agent-token-file=$K3S_AGENT_TOKEN_FILE agent-token=$K3S_AGENT_TOKEN bind-address
        cluster-domain cluster-reset-restore-path config,c=$K3S_CONFIG_FILE container-runtime-endpoint
        data-dir,d=$K3S_DATA_DIR datastore-cafile=$K3S_DATASTORE_CAFILE datastore-certfile=$K3S_DATASTORE_CERTFILE
        datastore-endpoint=$K3S_DATASTORE_ENDPOINT datastore-keyfile=$K3S_DATASTORE_KEYFILE default-local-storage-path
        default-runtime egress-selector-mode etcd-s3-access-key=$AWS_ACCESS_KEY_ID etcd-s3-bucket etcd-s3-config-secret
        etcd-s3-endpoint etcd-s3-endpoint-ca etcd-s3-folder etcd-s3-proxy etcd-s3-region
        etcd-s3-secret-key=$AWS_SECRET_ACCESS_KEY etcd-s3-timeout etcd-snapshot-dir etcd-snapshot-name
        etcd-snapshot-schedule-cron flannel-backend flannel-cni-conf flannel-conf flannel-iface helm-job-image
        image-credential-provider-bin-dir image-credential-provider-config image-service-endpoint log,l
        node-name=$K3S_NODE_NAME pause-image private-registry resolv-conf=$K3S_RESOLV_CONF secrets-encryption-provider
        server,s=$K3S_URL service-node-port-range servicelb-namespace snapshotter
        system-default-registry=$K3S_SYSTEM_DEFAULT_REGISTRY token,t=$K3S_TOKEN token-file=$K3S_TOKEN_FILE vmodule
        vpn-auth-file=$K3S_VPN_AUTH_FILE vpn-auth=$K3S_VPN_AUTH write-kubeconfig,o=$K3S_KUBECONFIG_OUTPUT
        write-kubeconfig-group=$K3S_KUBECONFIG_GROUP write-kubeconfig-mode=$K3S_KUBECONFIG_MODE
    """,
}
_AGENT = {
    "bool": """
        alsologtostderr debug=$K3S_DEBUG disable-apiserver-lb disable-default-registry-endpoint docker enable-pprof
        nonroot-devices prefer-bundled-bin protect-kernel-defaults rootless selinux=$K3S_SELINUX with-node-id
    """,
    "int": """
        lb-server-port=$K3S_LB_SERVER_PORT v
    """,
    "list": """
        airgap-extra-registry kube-proxy-arg kubelet-arg node-external-dns node-external-ip node-internal-dns node-ip,i
        node-label node-taint
    """,
    "string": """
        bind-address config,c=$K3S_CONFIG_FILE container-runtime-endpoint data-dir,d=$K3S_DATA_DIR default-runtime
        flannel-cni-conf flannel-conf flannel-iface image-credential-provider-bin-dir image-credential-provider-config
        image-service-endpoint log,l node-name=$K3S_NODE_NAME pause-image private-registry resolv-conf=$K3S_RESOLV_CONF
        server,s=$K3S_URL snapshotter token,t=$K3S_TOKEN token-file=$K3S_TOKEN_FILE vmodule
        vpn-auth-file=$K3S_VPN_AUTH_FILE vpn-auth=$K3S_VPN_AUTH
    """,
}
_DEFAULTS = {
    "cluster-cidr": ["10.42.0.0/16"],
    "data-dir": "/var/lib/rancher/k3s",
    "https-listen-port": 6443,
    "lb-server-port": 6444,
    "pause-image": "rancher/mirrored-pause:3.6",
    "private-registry": "/etc/rancher/k3s/registries.yaml",
    "write-kubeconfig": "/etc/rancher/k3s/k3s.yaml",
    "write-kubeconfig-mode": "0600",
}
_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


def _flags(tables):
    names, variables = {}, {}
    for kind, table in tables.items():
        for entry in table.split():
            entry, _, variable = entry.partition("=$")
            name, *aliases = entry.split(",")
            names.update({alias: (name, kind) for alias in [name, *aliases]})
            if variable:
                variables[variable] = name
    return names, variables


def server(arguments):
    """Settings by long name. Exits as k3s does when something cannot be accepted."""
    return _settings(_SERVER, arguments, "server - Run management server", skips_unknown_keys=True)


def agent(arguments):
    """The same for an agent, to which an unknown key in config.yaml is as bad as an unknown flag."""
    return _settings(_AGENT, arguments, "agent - Run node agent", skips_unknown_keys=False)


def _settings(tables, arguments, usage, skips_unknown_keys):
    names, variables = _flags(tables)
    values = {}
    tokens = [token for token in _from_file(arguments) if not skips_unknown_keys or _known(token, names)] + arguments
    while tokens:
        token = tokens.pop(0)
        match = re.fullmatch(r"--?([^=-][^=]*)(?:=(.*))?", token, re.DOTALL)
        if not match:
            break
        flag, value = match.groups()
        if flag not in names:
            print(
                f"Incorrect Usage: flag provided but not defined: -{flag}\n\nNAME:\n   k3s {usage}\n",
                flush=True,
            )
            log.fatal(f"flag provided but not defined: -{flag}")
        name, kind = names[flag]
        if kind == "bool":
            value = "true" if value is None else value
        elif value is None:
            if not tokens:
                log.fatal(f"flag needs an argument: -{flag}")
            value = tokens.pop(0)
        value = _typed(flag, kind, value)
        values[name] = values.get(name, []) + value if kind == "list" else value
    for variable, name in variables.items():
        if os.environ.get(variable) and name not in values:
            values[name] = _typed(name, names[name][1], os.environ[variable])
    return _DEFAULTS | values


def _typed(flag, kind, value):
    if kind == "bool":
        if value.lower() not in _BOOLEANS:
            log.fatal(f'invalid boolean value "{value}" for -{flag}: parse error')
        return _BOOLEANS[value.lower()]
    if kind == "int":
        if not re.fullmatch(r"-?[0-9]+", value):
            log.fatal(f'invalid value "{value}" for flag -{flag}: parse error')
        return int(value)
    return [value] if kind == "list" else value


def split(values):
    """The items of a list flag whose values may themselves be lists with commas."""
    return [item.strip() for value in values for item in value.split(",") if item.strip()]


def _known(token, names):
    flag = token.lstrip("-").partition("=")[0]
    if flag not in names:
        log.warning(f"Unknown flag {token.partition('=')[0]} found in config.yaml, skipping\n")
    return flag in names


def _from_file(arguments):
    """config.yaml and then config.yaml.d/*.yaml as arguments; a key ending in + adds to what was there."""
    path, chosen = os.environ.get("K3S_CONFIG_FILE"), True
    if not path:
        path, chosen = CONFIG_FILE, False
        for at, argument in enumerate(arguments):
            name, _, value = argument.partition("=")
            if name in ("-c", "--config", "-config"):
                path, chosen = value or "".join(arguments[at + 1 : at + 2]), True
    folder = path + ".d"
    parts = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    files = [os.path.join(folder, part) for part in parts if part.lower().endswith((".yaml", ".yml"))]
    if os.path.exists(path):
        files.insert(0, path)
    elif chosen and not files:
        log.fatal(f"stat {path}: no such file or directory")
    values = {}
    for file in files:
        for key, value in _mapping(file).items():
            name = key.removesuffix("+")
            if key.endswith("+") and name in values:
                values[name] = _listed(values[name]) + _listed(value)
            else:
                values[name] = value
    return [
        f"{'-' if len(name) == 1 else '--'}{name}={_text(item)}"
        for name, value in values.items()
        for item in (value if isinstance(value, list) else [value])
    ]


def _mapping(file):
    try:
        with open(file, encoding="utf-8") as stream:
            content = yaml_subset.load(stream.read())
    except yaml_subset.YamlError as problem:
        log.fatal(str(problem))
    if content is not None and not isinstance(content, dict):
        kind = "!!seq" if isinstance(content, list) else f"!!str `{content}`"
        log.fatal(f"yaml: unmarshal errors:\n  line 1: cannot unmarshal {kind} into yaml.MapSlice")
    return content or {}


def _listed(value):
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
