"""Sending commands to a server: choice of the node, and retries.

Commands of the engine are sent through any client of redis-py or valkey-py, without changing it. Replies are not
decoded, whatever the client's settings. A command that starts something is sent once: if the connection breaks, or no
reply arrives in time, the caller gets the error, and nothing is started twice.
"""

from __future__ import annotations

import contextlib
import inspect
import random
from typing import Any, TypeVar

from redis.exceptions import MovedError, ResponseError, TimeoutError

from .exceptions import is_error_reply, redis_error, redis_reply
from .exchange import (
    MARGIN,
    RAW,
    REDIRECTIONS_MAX,
    Exchange,
    Key,
    Owner,
    Request,
    Shards,
    is_cluster,
    is_foreign,
    late,
    name_for_pool,
)

__all__ = ["Link", "client_of_node"]

T = TypeVar("T")


def client_of_node(cluster: Any, node: Any) -> Any:
    """The client that a client of a cluster has for one of its nodes."""
    if hasattr(cluster, "get_redis_connection"):
        return cluster.get_redis_connection(node)
    return cluster.get_valkey_connection(node)


class Link:
    """Sends requests through a client of redis-py or valkey-py.

    Args:
        redis: a client for a server or a cluster, or anything with its ``execute_command``.
    """

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.is_cluster = is_cluster(redis)
        self._is_foreign = is_foreign(redis)
        self._owners: dict[str, Any] = {}

    def run(self, exchange: Exchange[T]) -> T:
        """Send the requests of an exchange, one after the other, and return its result."""
        try:
            request = next(exchange)
            while True:
                try:
                    reply = self.perform(request)
                except Exception as error:
                    request = exchange.throw(redis_error(error))
                else:
                    request = exchange.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    def perform(self, request: Request) -> Any:
        """Send a request and return the reply, or the replies by shard."""
        if not self.is_cluster:
            reply = self._exchange(self.redis, request)
            return {"": reply} if request.to is Shards.ALL else reply
        if request.to is Shards.ALL:
            return {node.name: self._exchange(self._client(node), request) for node in self.redis.get_primaries()}
        if isinstance(request.to, Key):
            return self._to_key(request, request.to.name)
        node = self._owner(request.to.shard_id) if isinstance(request.to, Owner) else None
        return self._exchange(self._client(node or random.choice(self.redis.get_primaries())), request)

    # -- nodes of a cluster ------------------------------------------------------------------------------------

    def _client(self, node: Any) -> Any:
        return client_of_node(self.redis, node)

    def _owner(self, shard_id: str) -> Any:
        """The node with an id; `None` if there is none."""
        if shard_id not in self._owners:
            for node in self.redis.get_primaries():
                node_id = self._client(node).execute_command("CLUSTER MYID", **RAW)
                self._owners[node_id.decode() if isinstance(node_id, bytes) else node_id] = node
        return self._owners.get(shard_id)

    def _to_key(self, request: Request, key: Any) -> Any:
        """Send to the node that holds a key. A node that does not hold it has not run the command."""
        moves = 0
        while True:
            try:
                return self._exchange(self._client(self.redis.get_node_from_key(key)), request)
            except ResponseError as error:
                moves += 1
                if not isinstance(error, MovedError) or moves > REDIRECTIONS_MAX:
                    raise
                self.redis.nodes_manager.initialize()

    # -- one node ----------------------------------------------------------------------------------------------

    def _exchange(self, client: Any, request: Request) -> Any:
        try:
            reply = _sent_once(client, request) if request.once else client.execute_command(*request.args, **RAW)
        except Exception as error:
            ours = redis_error(error)
            if ours is error:
                raise
            raise ours from error
        return redis_reply(reply) if self._is_foreign else reply


def _sent_once(client: Any, request: Request) -> Any:
    pool = getattr(client, "connection_pool", None)
    if pool is None or hasattr(client, "inside_server"):
        return client.execute_command(*request.args, **RAW)
    single = getattr(client, "connection", None)
    if single is not None:
        with getattr(client, "single_connection_lock", None) or contextlib.nullcontext():
            _close_if_ended(single)  # pools look themselves
            return _on_connection(single, request)
    connection = pool.get_connection(*name_for_pool(pool, request.args[0]))
    try:
        return _on_connection(connection, request)
    finally:
        pool.release(connection)


def _close_if_ended(connection: Any) -> None:
    """Close a connection that the server has closed since the last command; sending opens it again."""
    if getattr(connection, "_sock", None) is None:
        return
    try:
        connection.can_read(timeout=0)
    except Exception:  # of either library
        connection.disconnect()


def _on_connection(connection: Any, request: Request) -> Any:
    """Send a command on a connection and read its reply."""
    try:
        connection.send_command(*request.args)
        return _reply(connection, request)
    except BaseException as error:
        if not is_error_reply(error):
            connection.disconnect()  # a late reply must not be taken for the reply to another command
        raise


def _reply(connection: Any, request: Request) -> Any:
    own: float | None = getattr(connection, "socket_timeout", None)
    if request.patience is None or own is None:
        return connection.read_response(disable_decoding=True)
    wait = request.patience + max(own, MARGIN)
    try:
        # Versions of redis-py before 8 have no argument for it.
        if "timeout" in inspect.signature(connection.read_response).parameters:
            return connection.read_response(disable_decoding=True, timeout=wait)
        if not connection.can_read(timeout=wait):
            raise TimeoutError
    except TimeoutError:
        raise TimeoutError(late(request.args[0], wait, request.patience)) from None
    return connection.read_response(disable_decoding=True)
