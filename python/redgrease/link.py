"""Sending commands to a server: choice of the node, and retries.

Commands of the engine are sent through any client of redis-py or valkey-py, without changing it. Replies are not
decoded, whatever the client's settings. A command that starts something is sent once: if the connection breaks, or no
reply arrives in time, the caller gets the error, and nothing is started twice.

If a node of a cluster cannot be reached, or its connection breaks, the cluster is asked for its nodes again: another
one may have its slots now. What was not sent is then sent to that node.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import time
from typing import Any, TypeVar

from redis.exceptions import (
    ConnectionError,
    MaxConnectionsError,
    MovedError,
    ReadOnlyError,
    RedisClusterException,
    TimeoutError,
)

from .exceptions import is_error_reply, redis_error, redis_reply
from .exchange import (
    MARGIN,
    RAW,
    REDIRECTIONS_MAX,
    Exchange,
    Key,
    NotSentError,
    OnEachShard,
    Owner,
    Pause,
    Request,
    Shards,
    is_cluster,
    is_foreign,
    late,
    name_for_pool,
)

__all__ = ["Link", "client_of_node", "is_repeatable", "node_after"]

T = TypeVar("T")


def client_of_node(cluster: Any, node: Any) -> Any:
    """The client that a client of a cluster has for one of its nodes."""
    if hasattr(cluster, "get_redis_connection"):
        return cluster.get_redis_connection(node)
    return cluster.get_valkey_connection(node)


def node_after(cluster: Any, error: Exception, key: Any = None) -> Any:
    """The node for a request after another one has refused it with `error`; `None` if it is not known.

    Args:
        cluster: the client of the cluster.
        error: why the other one has refused it.
        key: the key that the request is for, if it is for one.
    """
    if isinstance(error, MovedError):
        # The node that was asked for the others may not know it yet.
        node = cluster.get_node(host=error.host, port=error.port)
        if node is not None:
            return node
    return None if key is None else cluster.get_node_from_key(key)


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
        self._is_outdated = False

    def run(self, exchange: Exchange[T]) -> T:
        """Perform the steps of an exchange, one after the other, and return its result."""
        try:
            step = next(exchange)
            while True:
                try:
                    reply = self.perform(step)
                except Exception as error:
                    step = exchange.throw(redis_error(error))
                else:
                    step = exchange.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    def perform(self, step: Request | Pause | OnEachShard) -> Any:
        """Send a request and return the reply, or the replies by shard; or pause; or run an exchange on each shard."""
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        if isinstance(step, OnEachShard):
            return self._on_each_shard(step)
        if not self.is_cluster:
            try:
                reply = self._exchange(self.redis, step)
            except NotSentError as failed:
                error = failed.error
            else:
                return {"": reply} if step.to is Shards.ALL else reply
            raise error
        return self._in_cluster(step)

    # -- nodes of a cluster ------------------------------------------------------------------------------------

    def _on_each_shard(self, step: OnEachShard) -> dict[str, Any]:
        if not self.is_cluster:
            return {"": self.run(step.start())}
        self._refresh_if_outdated()
        try:
            return {node.name: Link(self._client(node)).run(step.start()) for node in self.redis.get_primaries()}
        except (ConnectionError, ReadOnlyError) as reason:
            self._is_outdated |= not isinstance(reason, MaxConnectionsError)
            raise

    def _in_cluster(self, request: Request) -> Any:
        self._refresh_if_outdated()
        try:
            if request.to is Shards.ALL:
                return self._to_all(request)
            if isinstance(request.to, Key):
                return self._to_key(request, request.to.name)
            node = self._owner(request.to.shard_id) if isinstance(request.to, Owner) else None
            return self._exchange(self._client(node), request) if node else self._to_any(request)
        except NotSentError as failed:
            self._is_outdated = True
            error = failed.error
        except (ConnectionError, ReadOnlyError) as reason:
            self._is_outdated |= not isinstance(reason, MaxConnectionsError)
            raise
        raise error

    def _refresh_if_outdated(self) -> None:
        if self._is_outdated:
            self._refresh()

    def _refresh(self) -> None:
        """Ask the cluster for its nodes. If none answers, nothing changes: sending raises the reason."""
        with contextlib.suppress(Exception):  # of either library
            self.redis.nodes_manager.initialize()
            self._owners = {}
            self._is_outdated = False

    def _client(self, node: Any) -> Any:
        return client_of_node(self.redis, node)

    def _owner(self, shard_id: str) -> Any:
        """The node with an id; `None` if there is none."""
        if shard_id not in self._owners:
            for node in self.redis.get_primaries():
                node_id = self._client(node).execute_command("CLUSTER MYID", **RAW)
                self._owners[node_id.decode() if isinstance(node_id, bytes) else node_id] = node
        return self._owners.get(shard_id)

    def _to_all(self, request: Request) -> dict[str, Any]:
        """Send to all nodes; if one cannot be reached, a request that may be repeated is sent to the current ones."""
        try:
            return {node.name: self._exchange(self._client(node), request) for node in self.redis.get_primaries()}
        except NotSentError:
            if request.once:
                raise
        self._refresh()
        return {node.name: self._exchange(self._client(node), request) for node in self.redis.get_primaries()}

    def _to_any(self, request: Request) -> Any:
        """Send to a node that can be reached, and is no replica by now."""
        nodes = self.redis.get_primaries()
        reason: Exception = RedisClusterException("the cluster has no nodes")
        for node in random.sample(nodes, len(nodes)):
            try:
                return self._exchange(self._client(node), request)
            except (NotSentError, ReadOnlyError) as error:
                self._is_outdated = True
                reason = error
            except MovedError as error:  # it depends on the arguments, as for commands whose results are kept
                node = node_after(self.redis, error)
                if node is None:
                    raise
                return self._exchange(self._client(node), request)
        raise reason

    def _to_key(self, request: Request, key: Any) -> Any:
        """Send to the node that holds a key. A node that does not hold it, or is a replica, has not run the command."""
        node = self.redis.get_node_from_key(key)
        moves = 0
        while True:
            try:
                return self._exchange(self._client(node), request)
            except (MovedError, NotSentError, ReadOnlyError) as error:
                moves += 1
                self._refresh()
                before, node = node, node_after(self.redis, error, key)
                if moves > REDIRECTIONS_MAX or node.name == before.name:
                    raise

    # -- one node ----------------------------------------------------------------------------------------------

    def _exchange(self, client: Any, request: Request) -> Any:
        """Send a request to a server, or to a node, and return the reply.

        Raises:
            NotSentError: it was not sent, or may be sent again.
        """
        try:
            reply = _sent(client, request)
        except Exception as error:
            reason = error.error if isinstance(error, NotSentError) else error
            ours = redis_error(reason)
            if is_repeatable(error, ours, request):
                raise NotSentError(ours) from error
            if ours is error:
                raise
            raise ours from (reason.__cause__ if ours is reason else reason)
        return redis_reply(reply) if self._is_foreign else reply


def is_repeatable(error: Exception, ours: Exception, request: Request) -> bool:
    """Whether a request that failed may be sent to another node.

    Args:
        error: why it failed; `NotSentError` if it was not sent.
        ours: the reason, as an exception of redis-py.
        request: the request.
    """
    if isinstance(ours, MaxConnectionsError):  # no fault of the server
        return False
    return isinstance(error, NotSentError) or (not request.once and isinstance(ours, (ConnectionError, TimeoutError)))


def _sent(client: Any, request: Request) -> Any:
    pool = getattr(client, "connection_pool", None)
    if pool is None or hasattr(client, "inside_server"):
        return client.execute_command(*request.args, **RAW)
    single = getattr(client, "connection", None)
    if single is not None:
        with getattr(client, "single_connection_lock", None) or contextlib.nullcontext():
            _close_if_ended(single)  # pools look themselves
            if request.once:
                return _on_connection(single, request)
    if not request.once:
        return client.execute_command(*request.args, **RAW)
    try:
        connection = pool.get_connection(*name_for_pool(pool, request.args[0]))
    except Exception as error:
        raise NotSentError(error) from error
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
