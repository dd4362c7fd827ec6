"""The YAML that configuration files and manifests use, since Debian's Python has none.

Block mappings and sequences, flow collections, quoted and block scalars, comments and several
documents. Anchors, tags and multi-line plain scalars are refused. Errors are worded and
numbered as go-yaml does, because k3s passes them on.
"""

import re

_KEY = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s#"'\[\]{},&*!|>%@`-][^#]*?|-[^\s#][^#]*?)\s*:(?=\s|$)\s*""")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", '"': '"', "\\": "\\", "/": "/", " ": " "}
_WORDS = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "yes": True,
    "on": True,
    "false": False,
    "no": False,
    "off": False,
}


class YamlError(Exception):
    """What is wrong, as go-yaml says it."""


def load_all(text):
    documents, start, lines = [], 0, text.splitlines()
    for number, line in enumerate(lines + ["---"]):
        if line.rstrip() in ("---", "...") or line.startswith("--- "):
            parser = _Parser(lines[start:number], start)
            documents.append(parser.document())
            start = number + 1
    return [document for document in documents if document is not None]


def load(text):
    documents = load_all(text)
    return documents[0] if documents else None


def scalar(text):
    """What a plain scalar means, by the rules of YAML 1.1."""
    if text.lower() in _WORDS and (text == text.lower() or text in (text.title(), text.upper())):
        return _WORDS[text.lower()]
    if re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", text):
        return int(text)
    if re.fullmatch(r"0o?[0-7]+", text):
        return int(text.replace("o", ""), 8)
    if re.fullmatch(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text):
        return float(text)
    return text


def _strip_comment(text):
    quote = ""
    for at, character in enumerate(text):
        if quote:
            quote = "" if character == quote and not (quote == '"' and text[at - 1] == "\\") else quote
        elif character in "\"'" and (at == 0 or text[at - 1] in " [{,:"):
            quote = character
        elif character == "#" and (at == 0 or text[at - 1] in " \t"):
            return text[:at].rstrip()
    return text.rstrip()


def _unquote(text):
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text[1:-1])


class _Parser:
    def __init__(self, lines, offset):
        self.lines, self.offset, self.at = lines, offset, 0

    def fail(self, problem, line=None):
        raise YamlError(f"yaml: line {self.offset + (self.at if line is None else line) + 1}: {problem}")

    def peek(self):
        """Indentation and text of the next line that says something, or None."""
        while self.at < len(self.lines):
            line = self.lines[self.at]
            text = _strip_comment(line.lstrip(" "))
            if text:
                if text.startswith("\t"):
                    self.fail("found character that cannot start any token")
                return len(line) - len(line.lstrip(" ")), text
            self.at += 1
        return None

    def document(self):
        if self.peek() is None:
            return None
        value = self.node(0)
        if self.peek() is not None:
            self.fail("did not find expected key")
        return value

    def node(self, least):
        line = self.peek()
        if line is None or line[0] < least:
            return None
        indent, text = line
        if text == "-" or text.startswith("- "):
            return self.sequence(indent)
        if _KEY.match(text):
            return self.mapping(indent)
        self.at += 1
        return self.value(text, indent)

    def sequence(self, indent):
        items = []
        while (line := self.peek()) and line[0] == indent and (line[1] == "-" or line[1].startswith("- ")):
            # The item starts where its text does: put spaces for the dash and read on.
            rest = self.lines[self.at].lstrip(" ")[1:]
            if _strip_comment(rest.strip()):
                self.lines[self.at] = " " * (indent + 1) + rest
            else:
                self.at += 1
            items.append(self.node(indent + 1))
        if line and line[0] > indent:
            self.fail("did not find expected '-' indicator")
        return items

    def mapping(self, indent):
        result = {}
        while (line := self.peek()) and line[0] == indent:
            match = _KEY.match(line[1])
            if not match:
                if line[1].startswith("- "):
                    break
                self.fail("could not find expected ':'")
            key = match[1]
            key = _unquote(key) if key[0] in "\"'" else key
            rest = line[1][match.end() :]
            if rest and rest[0] not in "\"'[{|>" and re.search(r":(\s|$)", rest):
                self.fail("mapping values are not allowed in this context")
            self.at += 1
            if rest:
                result[key] = self.value(rest, indent)
            else:
                following = self.peek()
                dash = following and following[0] == indent and re.match(r"-(\s|$)", following[1])
                result[key] = self.node(indent if dash else indent + 1)
        if line and line[0] > indent:
            self.fail("did not find expected key")
        return result

    def value(self, text, indent):
        """A value that starts on the line before self.at."""
        if text[0] in "|>":
            return self.block_scalar(text, indent)
        if text[0] in "[{":
            return self.flow(text)
        if text[0] in "\"'":
            if len(text) < 2 or text[-1] != text[0]:
                self.fail("found unexpected end of stream", self.at - 1)
            return _unquote(text)
        if text[0] in "&*!%@`":
            self.fail("found character that cannot start any token", self.at - 1)
        return scalar(text)

    def block_scalar(self, header, indent):
        lines, least = [], None
        while self.at < len(self.lines):
            line = self.lines[self.at]
            depth = len(line) - len(line.lstrip(" "))
            if line.strip():
                least = depth if least is None else least
                if depth <= indent or depth < least:
                    break
            lines.append(line[least or 0 :])
            self.at += 1
        text = "\n".join(lines).rstrip("\n") if header[0] == "|" else " ".join(lines).strip()
        return text if "-" in header else text + "\n"

    def flow(self, text):
        first = self.at - 1
        while True:
            try:
                value, rest = self.flow_value(text, first)
                break
            except EOFError:
                if self.peek() is None:
                    expected = "node content" if text[-1] in "[{,:" else f"',' or '{']' if text[0] == '[' else '}'}'"
                    self.fail(f"did not find expected {expected}", first)
                text += " " + self.peek()[1]
                self.at += 1
        if rest.strip():
            self.fail("did not find expected key", first)
        return value

    def flow_value(self, text, first):
        text = text.lstrip()
        if not text:
            raise EOFError
        if text[0] in "[{":
            closing, result = ("]", []) if text[0] == "[" else ("}", {})
            text = text[1:].lstrip()
            while not text.startswith(closing):
                item, text = self.flow_value(text, first)
                text = text.lstrip()
                if closing == "}":
                    if not text.startswith(":"):
                        if not text:
                            raise EOFError
                        self.fail("did not find expected ',' or '}'", first)
                    result[item], text = self.flow_value(text[1:], first)
                    text = text.lstrip()
                else:
                    result.append(item)
                if text.startswith(","):
                    text = text[1:].lstrip()
                elif not text:
                    raise EOFError
                elif not text.startswith(closing):
                    self.fail(f"did not find expected ',' or '{closing}'", first)
            return result, text[1:]
        match = re.match(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')""", text)
        if match:
            return _unquote(match[0]), text[match.end() :]
        match = re.match(r"(?:[^,\[\]{}:]|:(?=\S)(?![,\[\]{}]))+", text)
        if not match:
            self.fail("did not find expected node content", first)
        return scalar(match[0].strip()), text[match.end() :]
