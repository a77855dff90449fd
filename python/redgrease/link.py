"""The way to a server: which node is asked, and how often.

Commands of the engine are sent through any redis-py client, without changing it. Replies come undecoded, whatever
the client does with those of other commands. A command that starts something is sent once: when the connection
breaks, or no answer comes in time, the caller gets the error, and nothing is started a second time.
"""

from __future__ import annotations

import random
from typing import Any

__all__ = ["Link"]

# redis-py's option for a reply that is not to be decoded.
_RAW = {"NEVER_DECODE": True}


class Link:
    """Sends commands of the engine through a redis-py client.

    Args:
        redis: a client of redis-py for a server or a cluster, or anything with its ``execute_command``.
    """

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self._owners: dict[str, Any] = {}

    @property
    def is_cluster(self) -> bool:
        """Whether the client is one for a cluster."""
        return hasattr(self.redis, "get_primaries")

    def ask(self, *args: Any) -> Any:
        """Send to any shard; redis-py may send it again."""
        return self._ask(self._any(), *args)

    def send(self, *args: Any) -> Any:
        """Send to any shard, once."""
        return self._send(self._any(), *args)

    def ask_owner(self, shard_id: str, *args: Any) -> Any:
        """Send to the shard where an execution began; redis-py may send it again."""
        return self._ask(self._owner(shard_id), *args)

    def send_owner(self, shard_id: str, *args: Any) -> Any:
        """Send to the shard where an execution began, once."""
        return self._send(self._owner(shard_id), *args)

    def ask_all(self, *args: Any) -> dict[str, Any]:
        """Send to all shards; replies by ``"host:port"``. Without a cluster the only name is ``""``."""
        if not self.is_cluster:
            return {"": self._ask(self.redis, *args)}
        return {node.name: self._ask(self._connection(node), *args) for node in self.redis.get_primaries()}

    # -- nodes -------------------------------------------------------------------------------------------------

    def _connection(self, node: Any) -> Any:
        return self.redis.get_redis_connection(node)

    def _any(self) -> Any:
        return self._connection(random.choice(self.redis.get_primaries())) if self.is_cluster else self.redis

    def _owner(self, shard_id: str) -> Any:
        if not self.is_cluster:
            return self.redis
        if shard_id not in self._owners:
            for node in self.redis.get_primaries():
                node_id = self._ask(self._connection(node), "CLUSTER MYID")
                self._owners[node_id.decode() if isinstance(node_id, bytes) else node_id] = node
        node = self._owners.get(shard_id)
        return self._any() if node is None else self._connection(node)

    # -- one node ----------------------------------------------------------------------------------------------

    @staticmethod
    def _ask(client: Any, *args: Any) -> Any:
        return client.execute_command(*args, **_RAW)

    @staticmethod
    def _send(client: Any, *args: Any) -> Any:
        pool = getattr(client, "connection_pool", None)
        if pool is None or getattr(client, "connection", None) is not None or hasattr(client, "inside_server"):
            return client.execute_command(*args, **_RAW)
        connection = pool.get_connection()
        try:
            connection.send_command(*args)
            return connection.read_response(disable_decoding=True)
        finally:
            pool.release(connection)
