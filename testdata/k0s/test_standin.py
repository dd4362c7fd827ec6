"""Tests of the parts that read and refuse, and of clusters: /usr/bin/python3 -B -m unittest discover testdata/k0s

A cluster's hosts are loopback addresses, its controllers processes without root and without containers.
"""

import base64
import gzip
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

import config
import flags
import tokens
from host import Stop


class Flags(unittest.TestCase):
    def test_forms(self):
        settings, words = flags.parse(
            "controller",
            ["--enable-worker", "--labels=a=b,c=d", "-c", "x.yaml", "--disable-components", "helm", "--no-taints=false", "t"],
        )
        self.assertEqual(
            settings,
            {
                "enable-worker": True,
                "labels": {"a": "b", "c": "d"},
                "config": "x.yaml",
                "disable-components": ["helm"],
                "no-taints": False,
            },
        )
        self.assertEqual(words, ["t"])

    def test_refused(self):
        for command, arguments, expected in [
            ("status", ["--bogus"], "unknown flag: --bogus"),
            ("worker", ["--single"], "unknown flag: --single"),
            ("worker", ["--profile"], "flag needs an argument: --profile"),
            ("controller", ["--single=maybe"], 'parsing "maybe": invalid syntax'),
            ("controller", ["--labels", "a"], "a must be formatted as key=value"),
        ]:
            with self.subTest(arguments=arguments), self.assertRaises(Stop) as caught:
                flags.parse(command, arguments)
            self.assertIn(expected, str(caught.exception))


class Config(unittest.TestCase):
    def loaded(self, spec):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as stream:
            stream.write(spec)
            stream.flush()
            return config.load(stream.name)

    def test_lets_pass(self):
        for text in (
            "",
            "kind: Wrong\nspec: {api: {adress: x}}\n",
            "spec: {network: {foo: 1}, storage: {etcd: {foo: 1}}, images: {foo: 1}}\n",
            "spec: {api: {externalAddress: 'https://x'}}\n",
        ):
            with self.subTest(text=text):
                self.loaded(text)

    def test_refused(self):
        for text, expected in [
            ("spec: {foo: 1}\n", 'json: unknown field "foo"'),
            ("spec: {telemetry: {foo: 1}}\n", 'json: unknown field "foo"'),
            ("spec: {network: {provider: flannel}}\n", 'supported values: "kuberouter", "calico", "custom"'),
            ("spec: {network: {podCIDR: 10.244.0.0/33}}\n", 'spec: network: podCIDR: Invalid value: "10.244.0.0/33"'),
            ("spec: {api: {address: not-an-ip}}\n", 'spec: api: address: Invalid value: "not-an-ip": invalid IP address'),
            ("spec: {api: {port: 70000}}\n", "must be between 1 and 65535, inclusive"),
            ("spec: {api: {extraArgs: {x: 30}}}\n", "cannot unmarshal number into Go struct field"),
            ("spec: {storage: {type: sqlite}}\n", 'supported values: "etcd", "kine"'),
            (
                "spec: {workerProfiles: [{name: x, values: {failCgroupV1: false, clusterDNS: x}}]}\n",
                "workerProfiles[0].values.clusterDNS: Forbidden: may not be used in k0s worker profiles",
            ),
        ]:
            with self.subTest(text=text), self.assertRaises(Stop) as caught:
                self.loaded(text)
            self.assertIn(expected, str(caught.exception))

    def test_images(self):
        found = self.loaded("spec: {images: {repository: 'sea.hub:5000'}, network: {provider: custom}}\n").images()
        self.assertIn("sea.hub:5000/k0sproject/pause:3.10.2-0", found)
        self.assertFalse([name for name in found if "kube-router" in name])


class Tokens(unittest.TestCase):
    def test_refused(self):
        with self.assertRaisesRegex(Stop, "failed to decode token: illegal base64 data at input byte 3"):
            tokens.decode("abc def", tokens.CONTROLLER, "failed to decode token")


class Cluster(unittest.TestCase):
    """Host n is 127.89.0.n."""

    def setUp(self):
        self.folder, self.running = tempfile.mkdtemp(), {}

    def tearDown(self):
        for process in self.running.values():
            process.kill()
            process.wait()
        shutil.rmtree(self.folder)

    def environment(self, host):
        root = os.path.join(self.folder, str(host))
        return os.environ | {"K0S_STAND_IN_ROOT": root, "K0S_STAND_IN_NAME": f"node{host}", "PYTHONPATH": SHARED}

    def path(self, host, name):
        return os.path.join(self.folder, str(host), name)

    def command(self, host, *arguments):
        return [sys.executable, "-B", HERE, *arguments]

    def controller(self, host, *arguments):
        os.makedirs(self.path(host, "etc/k0s"), exist_ok=True)
        spec = {
            "api": {"address": f"127.89.0.{host}"},
            "storage": {"type": "etcd", "etcd": {"peerAddress": f"127.89.0.{host}"}},
        }
        file = self.path(host, "etc/k0s/k0s.yaml")
        with open(file, "w", encoding="utf-8") as stream:
            json.dump({"spec": spec}, stream)
        return self.command(host, "controller", "--config", file, *arguments)

    def start(self, host, *arguments):
        with open(self.log(host), "ab") as stream:
            self.running[host] = subprocess.Popen(
                self.controller(host, *arguments), env=self.environment(host), stdout=stream, stderr=stream
            )

    def refused(self, host, *arguments):
        """A controller that ends; gives what it said."""
        done = subprocess.run(
            self.controller(host, *arguments), env=self.environment(host), capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.returncode, 1)
        return done.stderr

    def log(self, host):
        return os.path.join(self.folder, f"{host}.log")

    def said(self, host):
        with open(self.log(host), encoding="utf-8") as stream:
            return stream.read()

    def k0s(self, host, *arguments, timeout=20):
        done = subprocess.run(
            self.command(host, *arguments), env=self.environment(host), capture_output=True, text=True, timeout=timeout
        )
        return done.stdout + done.stderr

    def kubectl(self, host, *arguments):
        """By the address of the host: those of a test share the name localhost."""
        file = self.path(host, "var/lib/k0s/pki/admin.conf")
        if not os.path.exists(file):
            return ""
        with open(file, encoding="utf-8") as stream:
            text = stream.read().replace("localhost", f"127.89.0.{host}")
        with tempfile.NamedTemporaryFile("w") as stream:
            stream.write(text)
            stream.flush()
            return self.k0s(host, "kubectl", "--kubeconfig", stream.name, *arguments)

    def joined(self, host, of):
        return self.kubectl(host, "get", "etcdmember", of, "-o", 'jsonpath={.status.conditions[?(@.type=="Joined")].status}')

    def wait(self, what, is_so, seconds=40):
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                self.fail(f"{what}\n" + "".join(self.said(host)[-1500:] for host in self.running))
            time.sleep(0.2)

    def token(self, usages, kind="controller-bootstrap", port=9443, secret="0123456789abcdef"):
        """A file with a token that the first controller knows."""
        content = {"token-id": "abcdef", "token-secret": secret} | {usage: "true" for usage in usages}
        body = {"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token", "stringData": content}
        file = os.path.join(self.folder, "secret.json")
        with open(file, "w", encoding="utf-8") as stream:
            json.dump(body | {"metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}}, stream)
        self.kubectl(1, "apply", "-f", file)
        with open(self.path(1, "var/lib/k0s/pki/ca.crt"), "rb") as stream:
            authority = base64.b64encode(stream.read()).decode()
        cluster = {"server": f"https://127.89.0.1:{port}", "certificate-authority-data": authority}
        user = {"name": kind, "user": {"token": "abcdef.0123456789abcdef"}}
        text = json.dumps({"clusters": [{"name": "k0s", "cluster": cluster}], "users": [user]})
        file = os.path.join(self.folder, f"{kind}.token")
        with open(file, "w", encoding="ascii") as stream:
            stream.write(base64.b64encode(gzip.compress(text.encode())).decode() + "\n")
        return file

    def test_controllers_join_leave_and_are_refused(self):
        self.start(1)
        self.wait("the first is ready", lambda: self.joined(1, "node1") == "True")
        self.assertIn("Role: controller", self.k0s(1, "status"))
        wrong = self.token(["usage-bootstrap-authentication"], kind="kubelet-bootstrap")
        self.assertIn("wrong token type kubelet-bootstrap, expected type: controller-bootstrap", self.refused(5, "--token-file", wrong))
        self.assertIn('token file "/none" not found: obtain a new token via', self.refused(5, "--token-file", "/none"))
        self.assertIn("unknown component bogus", self.refused(5, "--disable-components=bogus"))
        token = self.token(["usage-controller-join", "usage-bootstrap-controller-join"])
        for host in (2, 3):
            self.start(host, "--token-file", token)
            self.wait("it joins", lambda: self.joined(host, f"node{host}") == "True")
            self.assertIn("Got valid CA response, storing certificates", self.said(host))
        self.assertEqual(self.kubectl(2, "get", "controlnodes", "-o", "name").count("controlnode"), 3)

        # One that is told to leave ends all but its process.
        self.kubectl(1, "patch", "etcdmember", "node3", "--type", "merge", "-p", '{"spec": {"leave": true}}')
        self.wait("it leaves", lambda: self.joined(1, "node3") == "False")
        self.wait("it ends", lambda: not os.path.exists(self.path(3, "run/k0s/status.sock")))
        self.assertIsNone(self.running[3].poll())
        self.assertIn("marked for shutdown; stopping components and waiting for external termination", self.said(3))
        # The last one of two stays.
        self.running[2].kill()
        self.wait("one of two is not enough", lambda: "ok" not in self.kubectl(1, "get", "--raw=/readyz"))
        self.start(2)
        self.wait("two of two are", lambda: self.kubectl(1, "get", "--raw=/readyz") == "ok")
        self.assertIn("etcd db file(s) already exist, not gonna run join process", self.said(2))


if __name__ == "__main__":
    unittest.main()
