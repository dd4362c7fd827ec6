"""The part of kubectl's jsonpath that is used: {.a.b[0].c}, [*] and [?(@.type=="x")]."""

import json
import re

_STEP = re.compile(r"""\.(?P<name>[A-Za-z0-9_-]+)|\[(?P<at>\d+|\*)\]|\[\?\(@\.(?P<key>\w+)\s*==\s*["'](?P<value>[^"']*)["']\)\]""")


def of(template, content):
    """The text of a template; what is not there is empty."""
    return re.sub(r"\{([^{}]*)\}", lambda match: " ".join(map(_text, _find(match[1], content))), template)


def _find(path, content):
    found, at = [content], 0
    while at < len(path):
        step = _STEP.match(path, at)
        if not step:
            raise ValueError(f"the stand-in can't read the jsonpath {path}")
        at = step.end()
        if step["name"]:
            found = [item[step["name"]] for item in found if isinstance(item, dict) and step["name"] in item]
            continue
        items = [item for entry in found if isinstance(entry, list) for item in entry]
        if step["key"]:
            found = [item for item in items if item.get(step["key"]) == step["value"]]
        else:
            found = items if step["at"] == "*" else items[int(step["at"]) :][:1]
    return found


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)
