"""Tests of the parts that read and refuse, and of clusters: /usr/bin/python3 -B -m unittest discover testdata/k3s

A cluster's hosts are loopback addresses, its servers processes without root and without containers.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SHARED = os.path.join(os.path.dirname(HERE), "standin")
sys.path[:0] = [HERE, SHARED]

import access
import flags
import keys
import registries
import yaml_subset


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
    def parsed(self, config, *arguments, parse=flags.server):
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "config.yaml")
            for name, text in ({"": config} if isinstance(config, str) else config).items():
                os.makedirs(os.path.dirname(file + name), exist_ok=True)
                with open(file + name, "w", encoding="utf-8") as stream:
                    stream.write(text)
            said = io.StringIO()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                try:
                    settings = parse(["--config", file, *arguments])
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

    def test_agent_skips_no_key(self):
        for key in ("tls-san", "bogus"):
            settings, said = self.parsed(f"token: a\n{key}: b\n", parse=flags.agent)
            self.assertIsNone(settings)
            self.assertIn(f'level=fatal msg="flag provided but not defined: -{key}"', said)


class Tokens(unittest.TestCase):
    def test_forms(self):
        full = access.Token("K10" + "a" * 64 + "::server:p:w")
        self.assertEqual((full.hash, full.user, full.password), ("a" * 64, "server", "p:w"))
        self.assertEqual(access.Token("pw").password, "pw")
        self.assertEqual(access.Token("abcdef.0123456789abcdef").bootstrap, "abcdef.0123456789abcdef")

    def test_refused(self):
        for text, expected in [("K10abc::x:y", "invalid token CA hash length"), ("K10nonsense", "invalid token format")]:
            with self.subTest(text=text), self.assertRaisesRegex(access.Refused, expected):
                access.Token(text)


class Cluster(unittest.TestCase):
    """Host n is 127.88.0.n."""

    def setUp(self):
        self.folder, self.running = tempfile.mkdtemp(), {}

    def tearDown(self):
        for process in self.running.values():
            process.kill()
            process.wait()
        shutil.rmtree(self.folder)

    def command(self, host, role, *arguments):
        folder = os.path.join(self.folder, str(host))
        os.makedirs(folder, exist_ok=True)
        address = f"127.88.0.{host}"
        own = ["--data-dir", folder + "/data", "--node-ip", address, "--private-registry", folder + "/none"]
        if role == "server":
            own += ["--bind-address", address, "--write-kubeconfig", folder + "/kubeconfig"]
        else:
            own += ["--lb-server-port", str(16444 + host)]
        return [sys.executable, "-B", HERE, role, *own, "--node-name", f"node{host}", *arguments]

    def environment(self, host):
        return os.environ | {"K3S_STAND_IN_ROOT": os.path.join(self.folder, str(host)), "PYTHONPATH": SHARED}

    def start(self, host, role, *arguments):
        environment = self.environment(host)
        with open(self.log(host), "ab") as stream:
            self.running[host] = subprocess.Popen(
                self.command(host, role, *arguments), env=environment, stdout=stream, stderr=stream
            )

    def refused(self, host, *arguments):
        """A server that ends; gives what it said."""
        environment = self.environment(host)
        done = subprocess.run(
            self.command(host, "server", *arguments), env=environment, capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.returncode, 1)
        return done.stderr

    def log(self, host):
        return os.path.join(self.folder, f"{host}.log")

    def said(self, host):
        with open(self.log(host), encoding="utf-8") as stream:
            return stream.read()

    def stop(self, host):
        process = self.running.pop(host)
        process.kill()
        process.wait()

    def kubectl(self, host, *arguments):
        kubeconfig = os.path.join(self.folder, str(host), "kubeconfig")
        return subprocess.run(
            [sys.executable, "-B", HERE, "kubectl", "--kubeconfig", kubeconfig, *arguments],
            env=self.environment(host),
            capture_output=True,
            text=True,
        )

    def nodes(self, host):
        """Status of the conditions by node; nothing while the API does not answer."""
        done = self.kubectl(host, "get", "nodes", "-o", "json")
        items = json.loads(done.stdout)["items"] if done.returncode == 0 else []
        return {
            item["metadata"]["name"]: {entry["type"]: entry["status"] for entry in item["status"]["conditions"]}
            for item in items
        }

    def wait(self, what, is_so, seconds=40):
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                self.fail(f"{what}\n" + "".join(self.said(host)[-1500:] for host in self.running))
            time.sleep(0.2)

    def server_file(self, host, path):
        return os.path.join(self.folder, str(host), "data", "server", path)

    def test_three_servers_and_an_agent(self):
        with contextlib.redirect_stderr(io.StringIO()):
            keys.make_authorities(self.server_file(1, "tls"))
        with open(self.server_file(1, "tls/server-ca.crt"), "rb") as stream:
            placed = stream.read()
        token = f"K10{access.hash_of(placed)}::server:secret"
        agent_token = f"K10{access.hash_of(placed)}::node:less"
        join = ["--server", "https://127.88.0.1:6443", "--token", token, "--agent-token", "less"]
        self.start(1, "server", "--cluster-init", "--token", token, "--agent-token", "less")
        self.wait("the first is ready", lambda: "k3s is up and running" in self.said(1))
        self.assertEqual(access.Server(join[1], token, "server").authority, placed)
        for host in (2, 3):
            self.start(host, "server", *join)
        self.start(4, "agent", "--server", "https://127.88.0.1:6443", "--token", agent_token)
        voter = {"Ready": "True", "EtcdIsVoter": "True"}
        whole = {"node1": voter, "node2": voter, "node3": voter, "node4": {"Ready": "True"}}
        for host in (1, 2, 3):
            self.wait("all are ready", lambda: self.nodes(host) == whole)

        self.stop(1)
        self.wait("one is missed", lambda: self.nodes(2).get("node1", {}).get("Ready") == "Unknown")
        self.assertEqual(self.kubectl(3, "label", "node", "node4", "a=b").stdout, "node/node4 labeled\n")
        self.stop(2)
        # A leader answers until it misses the others.
        self.wait("one of three is not enough", lambda: "request timed out" in self.kubectl(3, "get", "nodes").stderr)
        self.assertNotEqual(self.kubectl(3, "get", "--raw=/readyz").returncode, 0)
        self.start(2, "server", *join)
        self.wait("two of three are enough", lambda: self.nodes(2).get("node2", {}).get("Ready") == "True")
        self.assertEqual(self.nodes(3), self.nodes(2))

        # The one that is gone, and then one that still runs.
        self.assertEqual(self.kubectl(2, "delete", "node", "node1").stdout, 'node "node1" deleted\n')
        self.kubectl(2, "annotate", "node", "node3", "etcd.k3s.cattle.io/remove=true")
        done = "etcd.k3s.cattle.io/removed-node-name"
        self.wait("a member leaves", lambda: done in self.kubectl(2, "get", "node", "node3", "-o", "json").stdout)
        self.wait("its tombstone", lambda: os.path.exists(self.server_file(3, "db/etcd/tombstone")))
        self.assertIsNone(self.running[3].poll())
        self.wait("the agent stays", lambda: self.nodes(2).get("node4", {}).get("Ready") == "True")
        self.stop(3)
        self.start(3, "server", "--server", "https://127.88.0.2:6443", *join[2:])
        self.wait("it comes back", lambda: self.nodes(3).get("node3") == voter)
        self.assertIn("tombstone file has been detected, removing data dir to rejoin the cluster", self.said(3))

    def test_sqlite_and_what_is_refused(self):
        url, join = "https://127.88.0.1:6443", ["--server", "https://127.88.0.1:6443", "--token"]
        self.start(1, "server", "--token", "secret")
        self.wait("the first is ready", lambda: self.nodes(1) == {"node1": {"Ready": "True"}})
        self.assertIn('preparing server: etcd disabled"', self.refused(2, *join, "secret"))
        self.assertIn("but embedded etcd is not enabled.", self.said(1))
        self.stop(1)
        self.assertIn("encrypted with different token", self.refused(1, "--token", "other"))
        self.start(1, "server", "--token", "secret", "--cluster-init")
        self.wait("it is etcd's", lambda: self.nodes(1) == {"node1": {"Ready": "True", "EtcdIsVoter": "True"}})
        self.assertTrue(os.path.exists(self.server_file(1, "db/state.db.migrated")))
        wrong = "K10" + "a" * 64 + "::server:secret"
        for arguments, expected in [
            ([*join, "wrong"], "preparing server: failed to validate server configuration: not authorized"),
            ([*join, wrong], "preparing server: token CA hash does not match the Cluster CA certificate hash: aaaa"),
            ([*join, "secret", "--agent-token", "x"], "failed to validate server configuration: not authorized"),
            ([*join, "secret", "--cluster-domain", "x"], "critical configuration mismatched: cluster-domain"),
            ([*join, "secret", "--cluster-domain", "x"], "configuration value mismatch between servers"),
            ([*join, "secret", "--node-name", "node1"], "etcd cluster join failed: duplicate node name found"),
            (["--server", "https://127.88.0.9:6443", "--token", "secret"], "failed to get CA certs: Get "),
            (["--cluster-init", "--token", wrong], "token has a CA hash, but there is no Cluster CA"),
        ]:
            with self.subTest(arguments=arguments):
                shutil.rmtree(os.path.join(self.folder, "5"), ignore_errors=True)
                self.assertIn(expected, self.refused(5, *arguments))
        self.start(6, "agent", "--server", url, "--token", "wrong")
        self.start(7, "agent", "--server", url, "--token", "secret", "--node-name", "node1")
        waiting = "Waiting to retrieve agent configuration; server is not ready: "
        self.wait("401", lambda: waiting + "failed to retrieve configuration from server: not authorized" in self.said(6))
        self.wait("403", lambda: "Node password rejected, duplicate hostname" in self.said(7))
        self.assertEqual([self.running[host].poll() for host in (6, 7)], [None, None])
        self.running[6].terminate()
        self.assertEqual(self.running[6].wait(), 1)
        self.assertIn('level=fatal msg="failed to retrieve agent configuration: ', self.said(6))


if __name__ == "__main__":
    unittest.main()
