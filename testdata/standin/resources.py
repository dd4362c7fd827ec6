"""The kinds of objects that the API server and kubectl know, and where they live."""

import product

# plural: (kind, apiVersion, namespaced, short names)
KINDS = {
    "configmaps": ("ConfigMap", "v1", True, ["cm"]),
    "customresourcedefinitions": ("CustomResourceDefinition", "apiextensions.k8s.io/v1", False, ["crd", "crds"]),
    "daemonsets": ("DaemonSet", "apps/v1", True, ["ds"]),
    "deployments": ("Deployment", "apps/v1", True, ["deploy"]),
    "jobs": ("Job", "batch/v1", True, []),
    "namespaces": ("Namespace", "v1", False, ["ns"]),
    "nodes": ("Node", "v1", False, ["no"]),
    "pods": ("Pod", "v1", True, ["po"]),
    "secrets": ("Secret", "v1", True, []),
    "serviceaccounts": ("ServiceAccount", "v1", True, ["sa"]),
    "services": ("Service", "v1", True, ["svc"]),
    "statefulsets": ("StatefulSet", "apps/v1", True, ["sts"]),
} | product.KINDS


def plural_of(word):
    """The plural for what a user typed: pod, po, Pods, deployment.apps."""
    word = word.lower().partition(".")[0]
    for plural, (kind, _, _, short) in KINDS.items():
        if word in (plural, kind.lower(), *short):
            return plural
    return None


def path_of(plural, namespace="", name=""):
    """Path in the API; of all namespaces when a namespaced kind is given none."""
    _, version, namespaced, _ = KINDS[plural]
    path = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if namespaced and namespace:
        path += f"/namespaces/{namespace}"
    return f"{path}/{plural}" + (f"/{name}" if name else "")


def display_name(plural, name):
    """pod/x, deployment.apps/x: how kubectl names an object."""
    kind, version, _, _ = KINDS[plural]
    group = version.rpartition("/")[0]
    return f"{kind.lower()}{'.' + group if group else ''}/{name}"
