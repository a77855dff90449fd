"""Real clusters for tests: their servers, what they know of each other, and what changes them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from .database import flat_map, text
from .proxy import Proxy
from .servers import Server, ServerKind, free_port
from .waiting import wait_until

SLOTS = 16384

#: Longest time for a new cluster, or for a change of one that its own protocol makes. Servers that have just started
#: serve slots after two seconds.
FORMED_S = 60.0

#: After this time a failover that did not get the votes of the masters has ended: they vote for replicas of one master
#: only once in two node timeouts.
FAILOVER_S = 6.0


class Cluster:
    """Servers that are a cluster: the masters, and then replicas, of one master after the other.

    ``conf`` and ``load_args`` are those of `Server`. ``shares`` are the slots of each master; the default is the same
    number for each. ``proxied``: links go through a `Proxy` in front of each server, the cluster's own connections do
    not. ``tls``: the servers also accept connections with TLS; ``conf`` says whether they use it. ``envs``:
    variables in the environment of the first servers.
    """

    def __init__(
        self,
        kind: ServerKind,
        *,
        masters: int = 3,
        replicas: int = 0,
        shares: Sequence[Sequence[tuple[int, int]]] | None = None,
        conf: Mapping[str, object] | None = None,
        load_args: Mapping[str, object] | None = None,
        with_module: bool = True,
        proxied: bool = False,
        tls: bool = False,
        envs: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self.kind = kind
        self.envs = envs
        self.conf = dict(conf or {})
        self.load_args = dict(load_args or {})
        self.with_module = with_module
        self.servers: list[Server] = []
        self.proxied = proxied
        self.tls = tls
        #: By the port of their server.
        self._proxies: dict[int, Proxy] = {}
        try:
            for _ in range(masters * (1 + replicas)):
                self.start_server()
            self._form(masters, shares or even_shares(masters))
        except BaseException:
            self.kill_and_clean()
            raise

    @cached_property
    def home_tag(self) -> str:
        """The hash tag of the first shard."""
        script = "GB('PythonReader').run(lambda: iter([hashtag()]), mode='async_local')"
        with self.servers[0].client() as client:
            ((tag,), errors) = client.execute_command("RG.PYEXECUTE", script)
        assert errors == []
        return str(text(tag))

    def start_server(self) -> Server:
        """Another server, which knows nobody yet."""
        options = {"cluster-enabled": "yes", "cluster-config-file": "nodes.conf", "cluster-port": free_port()}
        if self.tls:
            options["tls-port"] = free_port()
        proxy = Proxy() if self.proxied else None
        if proxy is not None:
            options["cluster-announce-port"] = proxy.port
        server = Server(
            self.kind, conf={**options, **self.conf}, load_args=self.load_args, with_module=self.with_module
        )
        if len(self.servers) < len(self.envs):
            server.env = self.envs[len(self.servers)]
        self.servers.append(server.start())
        if proxy is not None:
            proxy.target = server.port
            self._proxies[server.port] = proxy
        return server

    def proxy(self, server: Server) -> Proxy:
        """The proxy in front of a server."""
        return self._proxies[server.port]

    def isolate(self, server: Server) -> None:
        """Cut all links from and to a server until `heal`; the cluster's own connections remain."""
        self.proxy(server).cut()
        for other in self.servers:
            if other is not server:
                self.proxy(other).cut_off(server.pid)

    def heal(self) -> None:
        """End what was done to links."""
        for proxy in self._proxies.values():
            proxy.heal()

    def _form(self, masters: int, shares: Sequence[Sequence[tuple[int, int]]]) -> None:
        for number, server in enumerate(self.servers):
            with server.client() as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if number < masters:
                    flat = [slot for span in shares[number] for slot in span]
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", *flat)
        for number, server in enumerate(self.servers):
            self.meet(server, self.servers[number + 1 :])
        self.wait_known()
        for number, replica in enumerate(self.servers[masters:]):
            self.replicate(replica, self.servers[number % masters])
        self.wait_served()

    def meet(self, server: Server, others: Sequence[Server]) -> None:
        """Introduce servers to each other."""
        with server.client() as client:
            for other in others:
                port = other.conf["tls-port"] if self.conf.get("tls-cluster") == "yes" else other.port
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", port, other.conf["cluster-port"])

    def replicate(self, replica: Server, master: Server) -> None:
        """Make a server that knows its master a replica of it."""
        master_id = self.id_of(master)
        with replica.client() as client:
            # A node has another id until it has answered.
            wait_until(
                lambda: client.execute_command("CLUSTER", "NODES"),
                "the replica knows the id of its master",
                until=lambda nodes: master_id in str(nodes),
                deadline=FORMED_S,
            )
            client.execute_command("CLUSTER", "REPLICATE", master_id)

    def id_of(self, server: Server) -> str:
        """The id of a node."""
        with server.client() as client:
            return str(text(client.execute_command("CLUSTER", "MYID")))

    def running(self) -> list[Server]:
        """The servers that have not ended."""
        return [server for server in self.servers if server.exit_code() is None]

    def infos(self) -> list[dict[str, str]]:
        """CLUSTER INFO of each server that runs."""
        found = []
        for server in self.running():
            with server.client() as client:
                found.append(client.execute_command("CLUSTER INFO"))
        return found

    def wait_known(self) -> None:
        """Wait until each server knows all others."""
        count = str(len(self.running()))
        wait_until(
            lambda: [int(info["cluster_known_nodes"]) for info in self.infos()],
            f"all of {count} nodes know each other",
            until=lambda seen: all(known >= int(count) for known in seen),
            deadline=FORMED_S,
        )

    def wait_served(self) -> None:
        """Wait until each server says that all slots are served."""
        wait_until(
            lambda: [(info["cluster_state"], info["cluster_slots_ok"]) for info in self.infos()],
            "all slots are served",
            until=lambda seen: all(one == ("ok", str(SLOTS)) for one in seen),
            deadline=FORMED_S,
        )

    # -- changes

    def move_slots(self, source: Server, target: Server, slots: Sequence[int]) -> None:
        """Move slots that have no keys, as `redis-cli --cluster reshard` does it."""
        source_id, target_id = self.id_of(source), self.id_of(target)
        for slot in slots:
            with target.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
            with source.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
                while keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                    client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            for server in (target, source):
                with server.client() as client:
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    def fail_over(self, replica: Server) -> None:
        """Promote a replica whose master answers, if it is not a master already."""
        with replica.client() as client:
            if client.info("replication")["role"] == "master":
                return
            wait_until(
                lambda: client.info("replication")["master_link_status"],
                "the replica is connected with its master",
                until=lambda status: status == "up",
                deadline=FORMED_S,
            )
            asked = 0.0

            def role() -> str:
                nonlocal asked
                found = str(client.info("replication")["role"])
                if found != "master" and time.monotonic() - asked > FAILOVER_S:
                    asked = time.monotonic()
                    client.execute_command("CLUSTER", "FAILOVER")
                return found

            wait_until(role, "the replica is a master", until=lambda found: found == "master", deadline=FORMED_S)

    def forget(self, gone: Server) -> None:
        """Remove a server that has no slots from the cluster."""
        gone_id = self.id_of(gone)
        for server in self.servers:
            if server is not gone:
                with server.client() as client:
                    client.execute_command("CLUSTER", "FORGET", gone_id)
        with gone.client() as client:
            client.execute_command("CLUSTER", "RESET", "HARD")

    # -- end

    def restart(self) -> None:
        """Kill all servers and start them again."""
        for server in self.servers:
            server.kill()
            server.start_again()
        self.wait_served()

    def key_of(self, server: Server) -> str:
        """A key in a slot of a server."""
        spans = [row[:2] for row in call(server, "CLUSTER", "SLOTS") if row[2][1] == server.port]
        held = (
            key
            for key in map("key:{}".format, range(10_000))
            if any(a <= key_slot(key.encode()) <= b for a, b in spans)
        )
        return next(held)

    def add_replica(self, master: Server) -> Server:
        """Start a replica of a server."""
        replica = self.start_server()
        self.meet(master, [replica])
        self.wait_known()
        self.replicate(replica, master)
        self._wait_linked(replica)
        return replica

    def take_over(self, replica: Server, master: Server) -> None:
        """Kill a server; its replica serves its slots from now on, and the other servers know it."""
        master.kill()
        call(replica, "CLUSTER", "FAILOVER", "TAKEOVER")
        self.wait_owner(replica)

    def begin_to_move(self, slot: int, old: Server, new: Server) -> None:
        """Let a slot be between two servers."""
        call(new, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(old))
        call(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(new))

    def end_move(self, slot: int, old: Server, new: Server) -> None:
        """Give a slot without keys to its new server."""
        for server in (new, old):
            call(server, "CLUSTER", "SETSLOT", slot, "NODE", self.id_of(new))
        self.wait_owner(new, slot)

    def wait_owner(self, owner: Server, slot: int = 0) -> None:
        """Wait until all running servers know that a server has a slot."""

        owner_id = self.id_of(owner)

        def owners() -> set[object]:
            rows = [row for server in self.running() for row in call(server, "CLUSTER", "SLOTS")]
            return {text(found[2]) for first, last, found, *_ in rows if first <= slot <= last}

        wait_until(owners, "the slot has its new owner", until=lambda seen: seen == {owner_id}, deadline=FORMED_S)

    def start_as_replica(self, server: Server) -> None:
        """Start a server again whose slots another one has."""
        server.start_again()
        self._wait_linked(server)

    @staticmethod
    def _wait_linked(replica: Server) -> None:
        wait_until(
            lambda: call(replica, "INFO", "replication").get("master_link_status"),
            "the replica is linked",
            until=lambda seen: seen == "up",
            deadline=FORMED_S,
        )

    def stop(self) -> None:
        """Stop all servers; a worker that survives is an error."""
        self._close_proxies()
        problems = []
        for server in self.servers:
            try:
                server.stop()
            except AssertionError as problem:
                problems.append(problem)
        if problems:
            raise problems[0]

    def _close_proxies(self) -> None:
        for proxy in self._proxies.values():
            proxy.close()

    def kill_and_clean(self) -> None:
        self._close_proxies()
        for server in self.servers:
            if server.process is not None:
                server.kill_and_clean()


def call(server: Server, *command: object) -> Any:
    """The reply of a server to a command."""
    with server.client() as client:
        return client.execute_command(*command)


def wait_links(*servers: Server, deadline: float = 20.0) -> None:
    """Wait until each shard has greeted all others."""

    def missing() -> list[str]:
        found = []
        for server in servers:
            info = cluster_info(server)
            nodes = [] if info is None else info.nodes
            found += [f"{server.port}: {node.id}" for node in nodes if node.run is None]
            found += [f"{server.port}: no cluster"] if not nodes else []
        return found

    wait_until(missing, "all links are ready", until=lambda left: not left, deadline=deadline)


def wait_runs(*servers: Server, deadline: float = FORMED_S) -> None:
    """Wait until each shard can begin executions on all of these."""

    def failed() -> list[str]:
        found = []
        for server in servers:
            with server.client() as client:
                try:
                    answer = client.execute_command("RG.PYEXECUTE", "GB('ShardsIDReader').count().run()")
                except redis.ResponseError as error:
                    answer = error
            if answer != [[str(len(servers)).encode()], []]:
                found.append(f"{server.port}: {answer}")
        return found

    wait_until(failed, "all shards run functions", until=lambda left: not left, deadline=deadline)


@contextmanager
def cluster_with(kind: ServerKind, **options: object) -> Iterator[Cluster]:
    cluster = Cluster(kind, **options)  # type: ignore[arg-type]
    try:
        yield cluster
    finally:
        cluster.stop()


def even_shares(masters: int) -> list[list[tuple[int, int]]]:
    """The same number of slots for each master."""
    ends = [SLOTS * number // masters for number in range(masters + 1)]
    return [[(first, end - 1)] for first, end in zip(ends, ends[1:])]


def shares_with_named_keys() -> list[list[tuple[int, int]]]:
    """Slots of three masters: the first one has those of all keys that the tests name literally.

    So a function that a test runs on the first shard finds the keys that it names. The other slots are distributed
    evenly: keys whose names are computed are on all shards.
    """
    named = {key_slot(name.encode()) for name in named_keys()}
    owners = [0 if slot in named else min(slot * 3 // SLOTS, 2) for slot in range(SLOTS)]
    return [list(spans(owners, number)) for number in range(3)]


def spans(owners: Sequence[int], owner: int) -> Iterator[tuple[int, int]]:
    """First and last slot of each range of an owner."""
    first = None
    for slot, each in enumerate([*owners, -1]):
        if each == owner and first is None:
            first = slot
        elif each != owner and first is not None:
            yield first, slot - 1
            first = None


def named_keys() -> set[str]:
    """Names that are keys in the tests: behind a command in `execute` and `wire`, first in `r.get` and `note_to`."""
    quoted = r"""b?(['"])([^'"\s]+)\{}"""
    patterns = [
        rf"""\bexecute\(\s*(['"])\w+\1\s*,\s*{quoted.format(2)}""",
        rf"""\bwire\(\)?\(?\s*(['"])\w+\1\s*,\s*{quoted.format(2)}""",
        rf"""\br\.\w+\(\s*{quoted.format(1)}""",
        rf"""\bnote_to\(\s*{quoted.format(1)}""",
    ]
    sources = [path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return {match[match.lastindex] for source in sources for each in patterns for match in re.finditer(each, source)}


@dataclass(frozen=True)
class NodeInfo:
    """A node in RG.INFOCLUSTER: its address, the first and the last slot of its first range, and the link to it."""

    id: str
    host: str
    port: int
    unix_socket: str | None
    run: str | None
    first: int
    last: int
    pending: int


@dataclass(frozen=True)
class ClusterInfo:
    """The reply of RG.INFOCLUSTER."""

    me: str
    run: str
    nodes: list[NodeInfo]


def cluster_info(server: Server) -> ClusterInfo | None:
    """RG.INFOCLUSTER of a server; `None` if it is not one of several shards."""
    with server.client() as client:
        return parse_info(client.execute_command("RG.INFOCLUSTER"))


def parse_info(reply: object) -> ClusterInfo | None:
    """The reply of RG.INFOCLUSTER."""
    if reply == b"no cluster mode":
        return None
    assert isinstance(reply, list)
    my_id, me, my_run, run, rows = reply
    assert (my_id, my_run) == (b"MyId", b"MyRunId")
    nodes = []
    for row in rows:
        fields = flat_map(row[:16])
        path = fields["unixSocket"]
        nodes.append(
            NodeInfo(
                id=str(fields["id"]),
                host=str(fields["ip"]),
                port=int(str(fields["port"])),
                unix_socket=None if path == "None" else str(path),
                run=None if fields["runid"] is None else str(fields["runid"]),
                first=int(str(fields["minHslot"])),
                last=int(str(fields["maxHslot"])),
                pending=int(str(fields["pendingMessages"])),
            )
        )
    return ClusterInfo(me=me.decode(), run=run.decode(), nodes=sorted(nodes, key=lambda node: node.id))
