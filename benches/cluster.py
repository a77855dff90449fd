"""A cluster of our own: several servers of one machine, with all slots."""

from __future__ import annotations

import time
from bisect import bisect_right
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import redis
from redis.crc import key_slot
from server import Server, run_script

SLOTS = 16384
FORMED_TIMEOUT_S = 60.0


class Cluster:
    """Masters of a cluster on this machine, linked when constructed."""

    def __init__(self, binary: Path, shards: int) -> None:
        #: The first slot of each shard.
        self._begins = [SLOTS * number // shards for number in range(shards)]
        self._stack = ExitStack()
        self.servers: list[Server] = []
        try:
            for _ in range(shards):
                self.servers.append(self._stack.enter_context(Server(binary, cluster=True)))
            self._form()
        except BaseException:
            self._stack.close()
            raise

    def _form(self) -> None:
        for number, server in enumerate(self.servers):
            first = self._begins[number]
            behind = [*self._begins, SLOTS][number + 1]
            server.command("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            server.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(behind - 1))
            for other in self.servers[:number]:
                server.command("CLUSTER", "MEET", "127.0.0.1", str(other.port), str(other.bus_port))
        deadline = time.monotonic() + FORMED_TIMEOUT_S
        while not all(self._is_linked(server) for server in self.servers):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the cluster is not formed after {FORMED_TIMEOUT_S:.0f} s")
            time.sleep(0.1)

    def _is_linked(self, server: Server) -> bool:
        if server.command("CLUSTER INFO")["cluster_state"] != "ok":
            return False
        try:
            return run_script(server.redis, "GB('ShardsIDReader').count().run()") == [str(len(self.servers)).encode()]
        except (RuntimeError, redis.ResponseError):
            return False

    def owner(self, key: str) -> Server:
        return self.servers[bisect_right(self._begins, key_slot(key.encode())) - 1]

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
