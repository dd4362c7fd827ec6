"""Embedded etcd: a member of a cluster that agrees by majority, as Raft has it.

One leader takes all changes and hands them on; whoever lags too far gets everything anew, since everything is
small. A change is done when most voters have it on disk, and a read is answered by the leader alone, while it
hears from most voters. Times are shorter than etcd's, rules and words are its own.
"""

import collections
import json
import os
import random
import threading
import time

import log
from database import State, Unavailable, write_json
from peers import Link, Listener, Refusal

_HEARTBEAT = 0.15
_ELECTION = 1.5
_PATIENCE = 3.0
_PROMOTE_AFTER = 0.3
_EVICT_AFTER = 300.0
_KEPT_CHANGES = 200
_TIMED_OUT = "etcdserver: request timed out"
_STOPPED = "etcdserver: server stopped"


class Member:
    managed = True

    """`outside` are the addresses on which clients are answered; `on_removed` is told of the end of the membership."""

    def __init__(self, folder, name, address, tls, outside, on_removed, promoted="Promoted learner {name}"):
        self.outside, self.on_removed, self.promoted = outside, on_removed, promoted
        self.folder, self.name, self.url, self.tls = folder, name, f"https://{address}:2380", tls
        self.path = os.path.join(folder, "member", "snap", "db")
        self.address, self.context = address, tls.client()
        self.cond = threading.Condition(threading.RLock())
        self.state, self.members = State(), {}
        self.term, self.voted, self.entry_term = 0, None, 0
        self.leader, self.heard, self.deadline, self.removed = None, 0.0, 0.0, False
        self.learner = ("", 0.0, 0, 0.0)  # its name, when it was added, how far it came, and when
        self.changes, self.matched, self.acked, self.first = collections.deque(maxlen=_KEPT_CHANGES), {}, {}, 0
        if os.path.exists(self.path):
            with open(self.path, encoding="utf-8") as stream:
                saved = json.load(stream)
            self.state.load(saved["state"])
            self.members, self.term, self.voted = saved["members"], saved["term"], saved["voted"]
            self.entry_term = saved["entryTerm"]

    # -------------------------------------------------- life

    def start(self, new=False):
        """Listens and takes part. Raises OSError when a port is taken."""
        os.makedirs(os.path.join(self.folder, "member", "wal"), mode=0o700, exist_ok=True)
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        handlers = {"/append": self._on_append, "/vote": self._on_vote, "/operation": self._on_operation}
        self.listeners = [
            Listener([self.address], 2380, self.tls, handlers),
            Listener(self.outside, 2379, self.tls, {"/health": lambda _: {"health": "true"}, **handlers}),
        ]
        with self.cond:
            if new:
                self.members = {self.name: {"url": self.url, "learner": False}}
                self._save()
            alone = list(self.members) == [self.name]
            self.deadline = time.monotonic() + (0 if alone else random.uniform(0.3, _ELECTION))
        threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self):
        while True:
            time.sleep(0.05)
            with self.cond:
                if self.removed:
                    return
                if self.leads():
                    if not self._majority_heard():
                        self._step_down(self.term)
                    else:
                        self._manage_learners()
                    continue
                voter = self.name in self.members and not self.members[self.name]["learner"]
                if not voter or time.monotonic() < self.deadline:
                    continue
                self._elect()

    def _stop_as_removed(self):
        """Called with the lock held, once."""
        if self.removed:
            return
        self.removed, self.leader = True, None
        self.cond.notify_all()
        log.info("the member has been permanently removed from the cluster")
        self.on_removed()

        def close():
            time.sleep(0.3)  # the last answers get out
            for listener in self.listeners:
                listener.close()

        threading.Thread(target=close, daemon=True).start()

    def _save(self):
        write_json(
            self.path,
            {
                "term": self.term,
                "voted": self.voted,
                "entryTerm": self.entry_term,
                "members": self.members,
                "state": self.state.dump(),
            },
        )

    # -------------------------------------------------- who leads

    def leads(self):
        return self.leader == self.name

    def status(self):
        """Why this member does not serve, or None."""
        with self.cond:
            if self.removed:
                return "failed to get etcd status: rpc error: code = Unavailable desc = connection error: " + (
                    f'desc = "transport: Error while dialing: dial tcp {self.address}:2379: connect: connection refused"'
                )
            if self.name not in self.members or self.members[self.name]["learner"]:
                return "this server has not yet been promoted from learner to voting member"
            if self.leader is None:
                return "etcdserver: no leader"
            return None

    def _voters(self):
        return [name for name, member in self.members.items() if not member["learner"]]

    def _majority(self):
        return len(self._voters()) // 2 + 1

    def _majority_heard(self):
        oldest = time.monotonic() - _ELECTION
        heard = [name for name in self._voters() if name == self.name or self.acked.get(name, 0) > oldest]
        return len(heard) >= self._majority()

    def _step_down(self, term):
        if term > self.term:
            self.term, self.voted = term, None
            self._save()
        if self.leads():
            self.leader = None
        self.deadline = time.monotonic() + random.uniform(_ELECTION, 2 * _ELECTION)
        self.cond.notify_all()

    def _elect(self):
        """Asks all voters. The lock is held but for the time of asking."""
        self.term, self.voted, self.leader = self.term + 1, self.name, None
        self.deadline = time.monotonic() + random.uniform(_ELECTION, 2 * _ELECTION)
        self._save()
        term, votes = self.term, {self.name}
        message = {"from": self.name, "term": term, "entryTerm": self.entry_term, "index": self.state.index}

        def ask(name, url):
            try:
                reply = self._link(url, 0.8).post("/vote", message)
            except (Unavailable, Refusal):
                return
            with self.cond:
                if reply.get("removed") and (reply["entryTerm"], reply["index"]) > (self.entry_term, self.state.index):
                    self._stop_as_removed()
                elif reply["term"] > self.term:
                    self._step_down(reply["term"])
                elif reply.get("granted") and self.term == term:
                    votes.add(name)
                self.cond.notify_all()

        others = [name for name in self._voters() if name != self.name]
        for name in others:
            threading.Thread(target=ask, args=(name, self.members[name]["url"]), daemon=True).start()
        self.cond.wait_for(lambda: self.term != term or len(votes) >= self._majority() or self.removed, timeout=0.9)
        if self.term == term and not self.removed and len(votes) >= self._majority() and self.leader is None:
            self.leader, now = self.name, time.monotonic()
            self.changes.clear()
            self.matched, self.acked = {}, {name: now for name in self.members}
            self._append([])
            self.first = self.state.index
            for name in self.members:
                self._replicate(name)

    def _on_vote(self, message):
        with self.cond:
            reply = {"term": self.term, "entryTerm": self.entry_term, "index": self.state.index}
            if self.removed:
                raise Unavailable(_STOPPED)
            if message["from"] not in self.members and self.members:
                return reply | {"removed": True}
            if self.leads() or time.monotonic() - self.heard < _ELECTION or message["term"] < self.term:
                return reply
            if message["term"] > self.term:
                self._step_down(message["term"])
            if self.voted not in (None, message["from"]):
                return reply | {"term": self.term}
            if (message["entryTerm"], message["index"]) < (self.entry_term, self.state.index):
                return reply | {"term": self.term}
            self.voted, self.deadline = message["from"], time.monotonic() + random.uniform(_ELECTION, 2 * _ELECTION)
            self._save()
            return reply | {"term": self.term, "granted": True}

    # -------------------------------------------------- from the leader to the others

    def _append(self, stamped, members=None):
        base = (self.entry_term, self.state.index)
        if members is not None:
            self.members = members
        self.state.apply(stamped)
        self.entry_term = self.term
        self.changes.append((base, stamped, members))
        self._save()
        self.cond.notify_all()
        return self.state.index

    def _replicate(self, name):
        if name == self.name:
            return
        threading.Thread(
            target=self._replicate_to, args=(name, self.members[name]["url"], self.term), daemon=True
        ).start()

    def _replicate_to(self, name, url, term):
        """Runs as long as this member leads in this term and the other belongs to the cluster."""
        link, known = self._link(url, 1.0), None
        while True:
            with self.cond:
                current = self.leads() and self.term == term and not self.removed
                if not current or name not in self.members:
                    break
                message, target, asked = self._message(known), (self.entry_term, self.state.index), time.monotonic()
            try:
                reply = link.post("/append", message)
            except (Unavailable, Refusal):
                time.sleep(_HEARTBEAT)
                continue
            with self.cond:
                if reply["term"] > term:
                    self._step_down(reply["term"])
                elif reply["fits"]:
                    known = target
                    self.matched[name], self.acked[name] = target[1], asked
                    self.cond.notify_all()
                    self.cond.wait_for(
                        lambda: self.state.index != known[1] or self.term != term or not self.leads(), _HEARTBEAT
                    )
                else:
                    known = None
        if current:  # the cluster goes on without the other
            try:
                link.post("/append", {"removed": True, "term": term, "from": self.name})
            except (Unavailable, Refusal):
                pass
        link.close()

    def _message(self, known):
        message = {"from": self.name, "term": self.term, "entryTerm": self.entry_term, "index": self.state.index}
        if known == (self.entry_term, self.state.index):
            return message | {"base": known, "changes": []}
        bases = [base for base, _, _ in self.changes]
        if known in bases:
            changes = [list(change[1:]) for change in list(self.changes)[bases.index(known) :]]
            return message | {"base": known, "changes": changes}
        return message | {"members": self.members, "state": self.state.dump()}

    def _on_append(self, message):
        with self.cond:
            if self.removed:
                raise Unavailable(_STOPPED)
            if message["term"] < self.term:
                return {"term": self.term, "fits": False}
            if message.get("removed"):
                self._stop_as_removed()
                return {"term": self.term, "fits": False}
            if message["term"] > self.term or self.leads():
                self._step_down(message["term"])
            changed = self.leader != message["from"]
            self.leader, self.heard = message["from"], time.monotonic()
            self.deadline = self.heard + random.uniform(_ELECTION, 2 * _ELECTION)
            fits = True
            if "state" in message:
                self.state.load(message["state"])
                self.members = message["members"]
            elif tuple(message["base"]) == (self.entry_term, self.state.index):
                for stamped, members in message["changes"]:
                    self.state.apply(stamped)
                    self.members = self.members if members is None else members
            else:
                fits = False
            if fits and ("state" in message or message["changes"] or self.entry_term != message["entryTerm"]):
                self.entry_term = message["entryTerm"]
                self._save()
            if changed:
                self.cond.notify_all()
            return {"term": self.term, "fits": fits}

    def healthy(self):
        """The members that answered the leader lately."""
        with self.cond:
            oldest = time.monotonic() - 2 * _ELECTION
            return {name for name in self.members if name == self.name or self.acked.get(name, 0) > oldest}

    # -------------------------------------------------- what members are asked for

    def read(self, plural, namespace=None, name=None):
        index, found = self.operation({"do": "read", "what": [plural, namespace, name]})
        return index, [(tuple(key), item) for key, item in found]

    def commit(self, changes):
        return self.operation({"do": "commit", "changes": [[list(key), seen, value] for key, seen, value in changes]})

    def remove(self, name):
        """Raises Refusal when too few would be left."""
        self.operation({"do": "remove", "name": name})

    def list_members(self):
        return self.operation({"do": "members"})

    def operation(self, message):
        """Has the leader do it, wherever that is. Raises Unavailable when there is none."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            with self.cond:
                self.cond.wait_for(lambda: self.leader or self.removed, max(0, deadline - time.monotonic()))
                if self.removed or self.name not in self.members:
                    raise Unavailable(_STOPPED)
                leader = self.leader
                url = self.members.get(leader, {}).get("url")
            try:
                if leader == self.name:
                    return self._lead(message)
                if url:
                    return self._link(url, _PATIENCE + 1).post("/operation", message)["result"]
            except _NotLeader:
                pass
            except Unavailable:
                if message["do"] in ("commit", "remove") and time.monotonic() < deadline:
                    raise  # nobody knows whether it was done
            if time.monotonic() >= deadline:
                raise Unavailable(_TIMED_OUT)
            time.sleep(0.1)

    def _on_operation(self, message):
        """From a member, or from a server that joins: one that leads answers."""
        try:
            return {"result": self._lead(message)}
        except _NotLeader as problem:
            if message.get("hops", 0):
                raise Unavailable("etcdserver: not leader") from problem
            return {"result": self.operation(message | {"hops": 1})}

    def _lead(self, message):
        with self.cond:
            if not self.leads() or self.removed:
                raise _NotLeader
            action = message["do"]
            if action == "read":
                index, found = self.state.index, self.state.select(*message["what"])
                self._wait_committed(index)
                return [index, found]
            if action == "members":
                self._wait_committed(self.state.index)
                return self.members
            if action == "commit":
                changes = [(tuple(key), seen, value) for key, seen, value in message["changes"]]
                if not self.state.fits(changes):
                    return False
                self._wait_committed(self._append(self.state.stamped(changes)))
                return True
            if action == "add":
                return self._add(message["name"], message["url"])
            if action == "remove":
                return self._remove(message["name"])
            raise Refusal(f"unknown operation {action}")

    def _wait_committed(self, index):
        term = self.term

        def committed():
            reached = sorted(
                (self.state.index if name == self.name else self.matched.get(name, 0) for name in self._voters()),
                reverse=True,
            )
            return reached[self._majority() - 1] >= max(index, self.first)

        done = self.cond.wait_for(lambda: self.removed or self.term != term or committed(), _PATIENCE)
        if not done or self.removed or not committed() or not self._majority_heard():
            raise Unavailable(_TIMED_OUT)

    # -------------------------------------------------- who belongs to the cluster

    def _add(self, name, url):
        if any(member["learner"] for member in self.members.values()):
            raise Refusal("etcdserver: too many learner members in cluster")
        oldest = time.monotonic() - _ELECTION
        if any(voter != self.name and self.acked.get(voter, 0) < oldest for voter in self._voters()):
            raise Refusal("etcdserver: unhealthy cluster")
        if any(member["url"] == url for member in self.members.values()):
            raise Refusal("etcdserver: Peer URLs already exists")
        members = self.members | {name: {"url": url, "learner": True}}
        index = self._append([], members)
        self._replicate(name)
        self._wait_committed(index)
        return members

    def _remove(self, name):
        if name not in self.members:
            return None
        members = {other: member for other, member in self.members.items() if other != name}
        oldest = time.monotonic() - _ELECTION
        voters = [other for other, member in members.items() if not member["learner"]]
        started = [other for other in voters if other == self.name or self.acked.get(other, 0) > oldest]
        if not self.members[name]["learner"] and (not voters or len(started) < len(voters) // 2 + 1):
            raise Refusal("etcdserver: re-configuration failed due to not enough started members")
        if name == self.name:
            # Those who stay know of it before this one goes.
            index = self._append([], members)
            self.cond.wait_for(
                lambda: sum(self.matched.get(other, 0) >= index for other in voters) >= len(voters) // 2 + 1, _PATIENCE
            )
            self._stop_as_removed()
            return None
        self._wait_committed(self._append([], members))
        return None

    def _manage_learners(self):
        """Promotes a learner that has caught up; gives up one that makes no progress."""
        for name, member in list(self.members.items()):
            if not member["learner"]:
                continue
            now, at = time.monotonic(), self.matched.get(name, 0)
            if self.learner[0] != name:
                self.learner = (name, now, at, now)
            _, added, reached, progress = self.learner
            if at > reached:
                self.learner = (name, added, at, now)
            if at == self.state.index and now - added > _PROMOTE_AFTER:
                self._append([], self.members | {name: member | {"learner": False}})
                self.acked[name] = now
                log.info(self.promoted.format(name=name))
            elif now - progress > _EVICT_AFTER:
                log.warning(f"Removing learner {name} from cluster: no progress")
                self._append([], {other: kept for other, kept in self.members.items() if other != name})

    def _link(self, url, timeout):
        return Link(url, self.context, timeout)


class _NotLeader(Exception):
    pass


def ask_members(urls, tls, message, timeout=10.0):
    """Asks the members one after another, from outside. Raises Unavailable or Refusal."""
    problem = Unavailable("no members")
    for url in urls:
        link = Link(url, tls.client(), timeout)
        try:
            return link.post("/operation", message)["result"]
        except Unavailable as failure:
            problem = failure
        finally:
            link.close()
    raise problem
