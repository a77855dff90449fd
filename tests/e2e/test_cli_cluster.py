"""`redgrease serve --cluster`: a real cluster on this machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import redis

from .cluster import parse_info
from .command_line import Cli, Terminal, is_running
from .servers import ServerKind
from .waiting import wait_until

HERE = "GB('PythonReader').count().run(lambda: iter([7]), mode='async_local')"


def ports_of(cli: Cli) -> list[int]:
    return sorted(record["port"] for record in cli.servers())


def roles(port: int) -> list[str]:
    with redis.Redis(port=port, decode_responses=True) as client:
        nodes = client.execute_command("CLUSTER NODES").values()
    return sorted(node["flags"].replace("myself,", "") for node in nodes)


def test_a_cluster_of_every_server_serves_all_slots_when_serve_returns(cli: Cli, server_kind: ServerKind) -> None:
    said = cli.run("serve", "--cluster", "--port", 0, "--background", "--server-binary", server_kind.binary())
    ports = ports_of(cli)
    assert len(ports) == 3 and "cluster of 3 masters with redgrease is ready" in said.stdout.decode()
    for port in ports:
        info = cli.call(port, "CLUSTER", "INFO").decode()
        assert "cluster_state:ok" in info and "cluster_slots_ok:16384" in info and "cluster_known_nodes:3" in info
        assert cli.call(port, "RG.PYEXECUTE", HERE).split() == [b"1"]
    with redis.RedisCluster(host="127.0.0.1", port=ports[0]) as client:
        assert all(client.set(f"key:{number}", number) for number in range(100))
    pids = [record["pid"] for record in cli.servers()]

    assert cli.run("stop").stdout.decode().count("stopped the server on port") == 3

    assert not any(is_running(pid) for pid in pids)


def test_masters_with_replicas(cli: Cli) -> None:
    cli.run("serve", "--cluster", 2, "--replicas", 1, "--port", 0, "--background")
    first = ports_of(cli)[0]
    assert roles(first) == ["master", "master", "slave", "slave"]
    assert cli.run("stop", "--port", ports_of(cli)[-1]).stdout.count(b"stopped") == 4, "any port names the cluster"


def test_a_cluster_with_a_folder_is_the_same_cluster_the_next_time(cli: Cli, tmp_path: Path) -> None:
    cli.run("serve", "--cluster", 1, "--port", 0, "--background", "--dir", tmp_path / "data")
    (port,) = ports_of(cli)
    cli.call(port, "SET", "a", "1")
    cli.run("stop")
    # Another test may have a connection with the number of this port for a moment.
    again = ("serve", "--cluster", 1, "--port", port, "--background", "--dir", tmp_path / "data")
    wait_until(
        lambda: cli.run(*again, code=None).returncode,
        "it is started again",
        until=lambda code: code == 0,
        deadline=40,
    )
    assert cli.call(port, "GET", "a") == b"1\n"
    assert [path.name for path in (tmp_path / "data").iterdir()] == [str(port)]


def test_ctrl_c_stops_all_nodes_and_logs_name_the_node(cli: Cli) -> None:
    shell = Terminal(cli, "serve", "--cluster", 2, "--port", 0, columns=200)
    try:
        shell.wait_for("stop it with Ctrl-C")
        records = cli.servers()
        first, second = ports_of(cli)
        shell.wait_for(f"{second} | ")
        logs = cli.run("logs", "--tail", 2).stdout.decode().splitlines()
        assert [line.split(" | ")[0] for line in logs] == [str(first)] * 2 + [str(second)] * 2
        assert b" | " not in cli.run("logs", "--port", second).stdout
        shell.type("\x03")
        shell.end()
    finally:
        shell.close()
    assert not any(is_running(record["pid"]) for record in records)
    assert list(cli.state.iterdir()) == []


def test_a_node_that_dies_is_reported_and_the_others_stay(cli: Cli) -> None:
    shell = Terminal(cli, "serve", "--cluster", 2, "--port", 0, columns=200)
    try:
        shell.wait_for("stop it with Ctrl-C")
        dies, stays = sorted(cli.servers(), key=lambda record: record["port"])
        os.kill(dies["pid"], signal.SIGKILL)
        shell.wait_for(f"the node on port {dies['port']} ended unexpectedly (signal: 9")
        assert is_running(stays["pid"])
        shell.type("\x03")
        shell.end(code=1)
    finally:
        shell.close()


def test_a_node_that_does_not_start_stops_the_others(cli: Cli) -> None:
    said = cli.fails("serve", "--cluster", 2, "--port", 0, "--background", "--", "--no-such-option", "1")
    assert "no-such-option" in said
    assert list(cli.state.iterdir()) == []


def test_a_port_that_is_taken_is_named_before_anything_starts(cli: Cli) -> None:
    cli.run("serve", "--cluster", 1, "--port", 0, "--background")
    (port,) = ports_of(cli)
    said = cli.fails("serve", "--cluster", 1, "--port", port)
    assert f"port {port} is in use by a server that `redgrease serve` started" in said
    # Other programs may have the port of the first node, or of its bus.
    assert " is in use by " in cli.fails("serve", "--cluster", 2, "--port", port - 1)
    assert ports_of(cli) == [port]
    cli.run("stop")


@pytest.mark.parametrize(
    "args",
    [
        ["--cluster", "--", "--tls-cluster", "yes"],
        ["--cluster", "0"],
        ["--cluster", "33"],
        ["--replicas", "1"],
        ["--cluster", "3", "--replicas", "5"],
        ["--cluster", "--port", "60000"],
    ],
)
def test_a_cluster_that_cannot_be_is_a_usage_error(cli: Cli, args: list[str]) -> None:
    cli.fails("serve", *args, code=2)


def test_a_cluster_with_a_password(cli: Cli) -> None:
    secret = {"REDISCLI_AUTH": "secret"}
    options = ("--cluster", 2, "--replicas", 1, "--port", 0, "--background")
    cli.run("serve", *options, "--", "--requirepass", "secret", **secret)
    port = ports_of(cli)[0]
    assert b"cluster_state:ok" in cli.run("call", "--port", port, "CLUSTER", "INFO", **secret).stdout
    # Replicas and links have the password, too.
    with redis.Redis(port=port, password="secret") as client:
        nodes = wait_until(
            lambda: client.execute_command("CLUSTER NODES"),
            "there are replicas",
            until=lambda nodes: sum("slave" in node["flags"] for node in nodes.values()) == 2,
        )
    # Only masters have links.
    master = next(address for address, node in nodes.items() if "master" in node["flags"])
    with redis.Redis(port=int(master.rpartition(":")[2]), password="secret") as client:
        wait_until(
            lambda: parse_info(client.execute_command("RG.INFOCLUSTER")),
            "there are links",
            until=lambda info: info is not None and all(node.run for node in info.nodes),
        )
    cli.run("stop")
    wait_until(lambda: cli.run("stop", code=None).returncode, "nothing is left to stop", until=lambda code: code == 1)
    assert "REDISCLI_AUTH" in cli.fails(
        "serve", "--cluster", 2, "--port", 0, "--background", "--", "--requirepass", "secret", code=5
    )
