"""A cluster with the helpers of `Database`, for tests that run on single servers and on clusters.

Commands go to the first shard, or where its redirection says. What concerns all shards goes to all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import redis
from redis.crc import key_slot

from .cluster import Cluster
from .database import Database, Execution, Registration
from .first_shard import on_first_shard
from .processes import Process
from .resp import Err, RespConnection
from .resp import Reply as WireReply
from .waiting import wait_until

#: Commands that every shard gets; the first shard's reply is returned.
FOR_ALL = {
    "ACL DELUSER",
    "ACL SETUSER",
    "CLIENT PAUSE",
    "CLIENT UNPAUSE",
    "CONFIG RESETSTAT",
    "CONFIG SET",
    "FLUSHALL",
    "FLUSHDB",
    "FUNCTION FLUSH",
    "FUNCTION LOAD",
    "RG.CONFIGSET",
    "SCRIPT FLUSH",
    "SLOWLOG RESET",
}
#: Commands whose replies are added up.
SUMMED = {"DBSIZE"}
#: Commands whose replies are lists that are put together.
JOINED = {"KEYS"}
#: Commands for several keys of any slots: their arguments for one key, and what becomes of the replies.
PER_KEY = {"DEL": 1, "UNLINK": 1, "EXISTS": 1, "MGET": 1, "MSET": 2}
#: Statistics of a registration that are added up.
COUNTERS = ("numTriggered", "numSuccess", "numFailures", "numAborted")


class RoutedClient(redis.Redis):
    """A client of the first shard that follows redirections."""

    def __init__(self, cluster: Cluster, **options: object) -> None:
        self._cluster = cluster
        self._nodes: dict[int, redis.Redis] = {}
        password = cluster.conf.get("requirepass")
        self._options: dict[str, object] = {"password": password, **options}
        super().__init__(**cluster.servers[0].client_settings(**self._options))  # type: ignore[arg-type]

    def node(self, port: int) -> redis.Redis:
        """A client of one node."""
        if port not in self._nodes:
            server = next(server for server in self._cluster.servers if server.port == port)
            self._nodes[port] = server.client(**self._options)
        return self._nodes[port]

    def nodes(self) -> list[redis.Redis]:
        return [self.node(server.port) for server in self._cluster.servers]

    def execute_command(self, *args: object, **options: object) -> object:
        name = self._name(args)
        if name == "RG.PYEXECUTE" and len(args) > 1:
            args = (args[0], on_first_shard(args[1], self._cluster.home_tag), *args[2:])
        if name in FOR_ALL:
            first, *_ = [node.execute_command(*args, **options) for node in self.nodes()]
            return first
        if name in SUMMED:
            return sum(node.execute_command(*args, **options) for node in self.nodes())
        if name in JOINED:
            return [item for node in self.nodes() for item in node.execute_command(*args, **options)]
        if name in PER_KEY and len(args) > 1 + PER_KEY[name]:
            return self._for_each_key(name, args, options)
        try:
            return super().execute_command(*args, **options)
        except redis.exceptions.MovedError as moved:
            return self.node(moved.port).execute_command(*args, **options)

    @staticmethod
    def _name(args: tuple[object, ...]) -> str:
        words = " ".join(str(word) for word in args[:2]).upper().split(" ")
        two = " ".join(words[:2])
        return two if two in FOR_ALL else words[0]

    def _for_each_key(self, name: str, args: tuple[object, ...], options: dict[str, object]) -> object:
        step = PER_KEY[name]
        groups = [args[at : at + step] for at in range(1, len(args), step)]
        replies = [self.execute_command(name, *group, **options) for group in groups]
        if name == "MGET":
            return [value for reply in replies for value in reply]  # type: ignore[attr-defined]
        return replies[0] if name == "MSET" else sum(replies)  # type: ignore[arg-type]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> object:
        """A transaction on the first shard, or commands that are run one after the other."""
        return super().pipeline(transaction, shard_hint) if transaction else RoutedPipeline(self)

    def scan_iter(self, *args: object, **options: object) -> Iterable[bytes]:  # type: ignore[override]
        for node in self.nodes():
            yield from node.scan_iter(*args, **options)  # type: ignore[arg-type]

    def close(self) -> None:
        for node in self._nodes.values():
            node.close()
        super().close()


class RoutedPipeline:
    """Commands that are kept and then run, as with a pipeline that is no transaction."""

    def __init__(self, client: RoutedClient) -> None:
        self._client = client
        self._calls: list[tuple[str, tuple[object, ...], dict[str, object]]] = []

    def __getattr__(self, name: str) -> object:
        def keep(*args: object, **options: object) -> RoutedPipeline:
            self._calls.append((name, args, options))
            return self

        return keep

    def __enter__(self) -> RoutedPipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self._calls.clear()

    def execute(self, raise_on_error: bool = True) -> list[object]:
        calls, self._calls = self._calls, []
        replies: list[object] = []
        for name, args, options in calls:
            try:
                replies.append(getattr(self._client, name)(*args, **options))
            except redis.ResponseError as error:
                if raise_on_error:
                    raise
                replies.append(error)
        return replies


class RoutedConnection(RespConnection):
    """A bare connection to the first shard, on which a command is sent again where its redirection says."""

    def __init__(self, cluster: Cluster, **options: bool) -> None:
        super().__init__(cluster.servers[0].port, **options)
        self._cluster = cluster
        self._options = options
        self._others: dict[int, RespConnection] = {}

    def send(self, *args: str | bytes | int) -> None:
        if len(args) > 1 and str(args[0]).upper() == "RG.PYEXECUTE":
            script = on_first_shard(args[1], self._cluster.home_tag)
            args = (args[0], script, *args[2:])  # type: ignore[assignment]
        super().send(*args)

    def __call__(self, *args: str | bytes | int) -> WireReply:
        reply = super().__call__(*args)
        if not (isinstance(reply, Err) and reply.text.startswith("MOVED ")):
            return reply
        port = int(reply.text.rpartition(":")[2])
        if port not in self._others:
            self._others[port] = RespConnection(port, **self._options)
        return self._others[port](*args)

    def close(self) -> None:
        for other in self._others.values():
            other.close()
        super().close()


class ClusterServer:
    """All servers of a cluster as one: their logs and processes; everything else is that of the first one."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def __getattr__(self, name: str) -> object:
        return getattr(self.cluster.servers[0], name)

    def client(self, **options: object) -> redis.Redis:
        return RoutedClient(self.cluster, **options)

    def workers(self) -> list[Process]:
        return [worker for server in self.cluster.servers for worker in server.workers()]

    def log(self) -> str:
        return "".join(server.log() for server in self.cluster.servers)

    def new_log(self) -> str:
        return "".join(server.new_log() for server in self.cluster.servers)

    def mark_log(self) -> None:
        for server in self.cluster.servers:
            server.mark_log()


class ClusterDatabase(Database):
    """A cluster with the helpers of `Database`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        super().__init__(ClusterServer(cluster))  # type: ignore[arg-type]
        self.nodes = [Database(server) for server in cluster.servers]

    @property
    def shards(self) -> int:
        return len(self.nodes)

    def close(self) -> None:
        super().close()
        for node in self.nodes:
            node.close()

    def wire(self, **options: bool) -> RespConnection:
        connection = RoutedConnection(self.cluster, **options)
        self._opened.append(connection)
        return connection

    def node_of(self, key: str) -> Database:
        """The shard that has the slot of a key."""
        slot = key_slot(key.encode())
        for first, last, master, *_ in self.r.execute_command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.server.port == master[1])
        raise AssertionError(f"slot {slot} has no shard")

    def executions(self) -> list[Execution]:
        """The executions of all shards, each once."""
        found: dict[str, Execution] = {}
        for node in self.nodes:
            for execution in node.executions():
                found.setdefault(execution.id, execution)
        return list(found.values())

    def registrations(self) -> list[Registration]:
        """The registrations of the first shard, with the statistics of all shards added up."""
        found = self.nodes[0].registrations()
        for node in self.nodes[1:]:
            others = {registration.id: registration for registration in node.registrations()}
            for registration in found:
                other = others.get(registration.id)
                for name in COUNTERS if other else ():
                    registration.data[name] += other.data.get(name, 0)  # type: ignore[operator,union-attr]
        return found

    def reset(self) -> None:
        def registrations() -> int:
            left = 0
            for node in self.nodes:
                node.r.execute_command("CLIENT", "UNPAUSE")
                for registration in node.r.execute_command("RG.DUMPREGISTRATIONS"):
                    left += 1
                    # Another shard may have removed it.
                    with suppress(redis.ResponseError):
                        node.r.execute_command("RG.UNREGISTER", registration[1], "ABORTPENDING")
            return left

        wait_until(registrations, "all registrations are gone from all shards", until=lambda left: left == 0)
        for node in self.nodes:
            node.reset()
