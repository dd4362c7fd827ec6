"""Names of container images, as the container runtime reads them."""

import re

_PATH = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?P<name>(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?{_PATH}(?:/{_PATH})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def parse(reference):
    """(host, path, tag, digest) in full: host and library/ filled in, tag and digest as given or None."""
    match = _NAME.fullmatch(reference)
    if not match:
        raise ValueError("invalid reference format")
    host, slash, path = match["name"].partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, path = "docker.io", match["name"]
    if host == "index.docker.io":
        host = "docker.io"
    if host == "docker.io" and "/" not in path:
        path = "library/" + path
    return host, path, match["tag"], match["digest"]


def normalise(reference):
    """The one name under which the runtime looks an image up: a digest wins over a tag."""
    host, path, tag, digest = parse(reference)
    return f"{host}/{path}@{digest}" if digest else f"{host}/{path}:{tag or 'latest'}"
