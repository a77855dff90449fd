"""A real cluster for tests."""

from __future__ import annotations

from .servers import Server, ServerKind, free_port
from .waiting import wait_until


class Cluster:
    """Three servers that are a cluster."""

    def __init__(self, kind: ServerKind) -> None:
        self.servers = [self._server(kind).start() for _ in range(3)]
        clients = [server.client() for server in self.servers]
        for number, client in enumerate(clients):
            first, last = number * 5461, 16383 if number == 2 else number * 5461 + 5460
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for server in self.servers[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, server.conf["cluster-port"])

        def states():
            found = [client.execute_command("CLUSTER INFO") for client in clients]
            return [(one["cluster_state"], one["cluster_known_nodes"]) for one in found]

        wait_until(states, "all nodes are in the cluster", until=lambda seen: seen == [("ok", "3")] * 3, deadline=30)
        for client in clients:
            client.close()

    @staticmethod
    def _server(kind: ServerKind) -> Server:
        options = {"cluster-enabled": "yes", "cluster-config-file": "nodes.conf", "cluster-port": free_port()}
        return Server(kind, conf=options)

    def stop(self) -> None:
        for server in self.servers:
            server.stop()
