"""Tests of what all stand-ins share: /usr/bin/python3 -B -m unittest discover testdata/standin"""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import jsonpath
import references
import yaml_subset


class Yaml(unittest.TestCase):
    def test_values(self):
        for text, expected in [
            ("", None),
            ("# only a comment\n", None),
            ('a: 1\nb: "x: y" # c\nc:\n- 1\n- two\n', {"a": 1, "b": "x: y", "c": [1, "two"]}),
            ('d: [a, "b,c", {x: y}]\ne: {a: b}\n', {"d": ["a", "b,c", {"x": "y"}], "e": {"a": "b"}}),
            ("f: |\n  one\n   two\n\n  three\ng: >-\n  a\n  b\n", {"f": "one\n two\n\nthree\n", "g": "a b"}),
            ("- a: 1\n  b:\n    - x\n- - 1\n  - 2\n", [{"a": 1, "b": ["x"]}, [1, 2]]),
            ('m: 0644\nq: "0644"\nt: yes\nn: ~\n', {"m": 0o644, "q": "0644", "t": True, "n": None}),
            ("args: [--a=b, -x]\nurl: http://h:5/p#x\n", {"args": ["--a=b", "-x"], "url": "http://h:5/p#x"}),
            ("a: [\n  b,\n  c\n]\n", {"a": ["b", "c"]}),
        ]:
            with self.subTest(text=text):
                self.assertEqual(yaml_subset.load(text), expected)

    def test_documents(self):
        self.assertEqual(yaml_subset.load_all("---\na: 1\n---\n---\nb: 2\n"), [{"a": 1}, {"b": 2}])

    def test_errors(self):
        for text, expected in [
            ("token: [\n", "yaml: line 1: did not find expected node content"),
            ("mirrors:\n  a: [\n", "yaml: line 2: did not find expected node content"),
            ("a: b: c\n", "yaml: line 1: mapping values are not allowed in this context"),
            ("\ta: b\n", "yaml: line 1: found character that cannot start any token"),
            ("a:\n  b: c\n d: e\n", "yaml: line 3: did not find expected key"),
        ]:
            with self.subTest(text=text), self.assertRaises(yaml_subset.YamlError) as caught:
                yaml_subset.load(text)
            self.assertEqual(str(caught.exception), expected)


class References(unittest.TestCase):
    def test_normalise(self):
        digest = "sha256:" + "a" * 64
        for name, expected in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("rancher/pause:3.6", "docker.io/rancher/pause:3.6"),
            ("index.docker.io/x:1", "docker.io/library/x:1"),
            ("localhost/x", "localhost/x:latest"),
            ("sea.hub:5000/a/b:c", "sea.hub:5000/a/b:c"),
            (f"quay.io/a:1@{digest}", f"quay.io/a@{digest}"),
        ]:
            with self.subTest(name=name):
                self.assertEqual(references.normalise(name), expected)

    def test_refused(self):
        for name in ("", "Bad:1", "a:b:c", "a@sha256:1"):
            with self.subTest(name=name), self.assertRaises(ValueError):
                references.normalise(name)


class Jsonpath(unittest.TestCase):
    def test_values(self):
        member = {"status": {"conditions": [{"type": "Joined", "status": "True"}, {"type": "x", "status": "no"}]}, "n": [1]}
        for template, expected in [
            ('{.status.conditions[?(@.type=="Joined")].status}', "True"),
            ('{.status.conditions[?(@.type=="Gone")].status}', ""),
            ("{.status.conditions[*].type}", "Joined x"),
            ("n={.n[0]}", "n=1"),
        ]:
            with self.subTest(template=template):
                self.assertEqual(jsonpath.of(template, member), expected)


if __name__ == "__main__":
    unittest.main()
