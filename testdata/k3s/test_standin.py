"""Unit tests of the parts that read and refuse: /usr/bin/python3 -B -m unittest discover testdata/k3s"""

import contextlib
import io
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import flags
import references
import registries
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


class Registries(unittest.TestCase):
    def rendered(self, text, **options):
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "registries.yaml")
            with open(file, "w", encoding="utf-8") as stream:
                stream.write(text)
            listed = registries.Registries.read(file, **options)
            listed.write(folder)
            hosts = {}
            for name in os.listdir(folder):
                if name != "registries.yaml":
                    with open(os.path.join(folder, name, "hosts.toml"), encoding="utf-8") as stream:
                        hosts[name] = [line for line in stream.read().splitlines() if line and not line.startswith("#")]
            return listed, hosts

    def test_mirror_with_authority_and_password(self):
        listed, hosts = self.rendered(
            'mirrors:\n  docker.io: {endpoint: ["https://sea.hub:5000"]}\n  "*": {endpoint: ["sea.hub:5000", "http://o/p"]}\n'
            "  ghcr.io: {}\nconfigs:\n  sea.hub:5000: {auth: {username: u, password: p}, tls: {ca_file: /ca}}\n"
        )
        sea = ['[host."https://sea.hub:5000/v2"]', '  capabilities = ["pull", "resolve"]', '  ca = ["/ca"]']
        push = 'capabilities = ["pull", "resolve", "push"]'
        self.assertEqual(
            hosts,
            {
                "docker.io": ['server = "https://registry-1.docker.io/v2"', push, "[host]", *sea],
                "_default": [
                    'server = ""',
                    push,
                    "[host]",
                    *sea,
                    '[host."http://o/p"]',
                    '  capabilities = ["pull", "resolve"]',
                    "  override_path = true",
                ],
                "sea.hub:5000": ['server = "https://sea.hub:5000/v2"', push, 'ca = ["/ca"]', "[host]"],
            },
        )
        self.assertEqual(listed.credentials("busybox"), ("u", "p"))
        self.assertEqual(listed.credentials("quay.io/x:1"), ("u", "p"))
        self.assertNotIn("password", str(hosts))
        self.assertIn('  password = "p"', listed.auth_toml())

    def test_unknown_keys_mean_nothing(self):
        self.assertEqual(self.rendered("mirorrs:\n  docker.io: {endpoint: [x]}\n")[1], {})

    def test_wrong_type(self):
        with self.assertRaises(yaml_subset.YamlError):
            self.rendered("mirrors: 3\n")


class Flags(unittest.TestCase):
    def parsed(self, config, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "config.yaml")
            for name, text in ({"": config} if isinstance(config, str) else config).items():
                os.makedirs(os.path.dirname(file + name), exist_ok=True)
                with open(file + name, "w", encoding="utf-8") as stream:
                    stream.write(text)
            said = io.StringIO()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                try:
                    settings = flags.server(["--config", file, *arguments])
                except SystemExit:
                    settings = None
            return settings, said.getvalue()

    def test_file_and_arguments(self):
        settings, said = self.parsed(
            'token: a\ndisable: [coredns, "x,y"]\nwrite-kubeconfig-mode: "0640"\n',
            "--token=b",
            "--disable",
            "z",
            "--debug",
        )
        self.assertEqual((settings["token"], settings["debug"], settings["write-kubeconfig-mode"]), ("b", True, "0640"))
        self.assertEqual(flags.split(settings["disable"]), ["coredns", "x", "y", "z"])
        self.assertEqual(said, "")

    def test_parts_append(self):
        settings, _ = self.parsed({"": "node-label: [a=b]\ntoken: x\n", ".d/1.yaml": "node-label+: [c=d]\ntoken: y\n"})
        self.assertEqual((settings["node-label"], settings["token"]), (["a=b", "c=d"], "y"))

    def test_unknown_key_is_skipped(self):
        settings, said = self.parsed("bogus-key: 1\ntoken: a\n")
        self.assertEqual(settings["token"], "a")
        self.assertIn(r'level=warning msg="Unknown flag --bogus-key found in config.yaml, skipping\n"', said)

    def test_refused(self):
        for config, arguments, expected in [
            ("token: [\n", [], "yaml: line 1: did not find expected node content"),
            ("https-listen-port: abc\n", [], r"invalid value \"abc\" for flag -https-listen-port: parse error"),
            ("", ["--nope"], "flag provided but not defined: -nope"),
        ]:
            with self.subTest(config=config):
                settings, said = self.parsed(config, *arguments)
                self.assertIsNone(settings)
                self.assertIn(f'level=fatal msg="{expected}"', said)


if __name__ == "__main__":
    unittest.main()
