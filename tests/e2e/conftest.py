"""Fixtures: tests of the module's edge run on every kind of server that is available, others on one. Tests of what
users see run on a cluster, too.

``REDGREASE_TEST_SERVERS=valkey-9,redis-8.2`` runs all of them on these kinds. A server that is not available is a
skipped test with the reason, never a missing one. One server per kind (and per xdist worker) is shared by the tests and
reset between them; `fresh_server` starts further ones for tests that need load arguments, an append-only file, a
replica or a kill.

Tests that use `db` also run on a cluster of three shards, if their file is in `ON_CLUSTER`. A test that cannot has the
mark ``single("reason")``; ``pytest --list-single`` prints all of them, and the files that do not run on a cluster yet.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redgrease

from .cluster import Cluster, shares_with_named_keys, wait_runs
from .cluster_database import ClusterDatabase
from .command_line import REDGREASE, Cli
from .database import Database
from .servers import MODULE, SELECTION, Server, ServerKind, UnavailableError, selected_kinds
from .tls import start_tls_server

#: Tests of what depends on the server: its module API, its events and replies, its clients.
ON_EVERY_SERVER = {
    "test_answers",
    "test_bad_input",
    "test_cached_commands",
    "test_call_contexts",
    "test_clients",
    "test_cluster_clients",
    "test_cluster_security",
    "test_cluster_topology",
    "test_commands",
    "test_concurrency",
    "test_databases",
    "test_errors",
    "test_executions",
    "test_failover",
    "test_filecache",
    "test_hardening",
    "test_hooks",
    "test_inspection",
    "test_keys_registrations",
    "test_limits",
    "test_loading",
    "test_old_clients",
    "test_pause_and_scripts",
    "test_pending_events",
    "test_persistence",
    "test_readers",
    "test_rendering",
    "test_replication",
    "test_runtime_functions",
    "test_stream_registrations",
    "test_time_events",
    "test_users",
    "test_wheels",
}
#: Tests of one server that also run on a cluster. Functions of the other files need executions on all shards.
ON_CLUSTER = {
    "test_answers",
    "test_async",
    "test_bad_input",
    "test_call_contexts",
    "test_commands",
    "test_concurrency",
    "test_confinement",
    "test_databases",
    "test_errors",
    "test_executions",
    "test_hardening",
    "test_hooks",
    "test_inspection",
    "test_isolation",
    "test_keys_registrations",
    "test_leaks",
    "test_limits",
    "test_loading",
    "test_old_clients",
    "test_operations",
    "test_pause_and_scripts",
    "test_pending_events",
    "test_pyexecute",
    "test_python_versions",
    "test_readers",
    "test_rendering",
    "test_requirements",
    "test_runtime_functions",
    "test_shared_memory",
    "test_stream_registrations",
    "test_time_events",
    "test_users",
}
#: The kind of servers of that cluster.
CLUSTER_KIND = "valkey-9"
_LOG_TAIL_LINES = 200
_servers_of_test = pytest.StashKey[list[Server]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes long; part of `make test-all`, not of `make test`")
    config.addinivalue_line("markers", "single(reason): cannot run on a cluster")
    gone = [name for name in ON_EVERY_SERVER | ON_CLUSTER if not Path(__file__).with_name(f"{name}.py").exists()]
    if gone:
        raise pytest.UsageError(f"ON_EVERY_SERVER or ON_CLUSTER names {gone}, which do not exist")
    # A shell ignores Control-C in what it runs in the background, and programs that tests start would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _selected_kinds() -> list[ServerKind]:
    try:
        return selected_kinds()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def _kinds_of(module: str) -> list[ServerKind]:
    """The kinds of servers that the tests of a module run on."""
    kinds = _selected_kinds()
    if os.environ.get(SELECTION) or module.rpartition(".")[2] in ON_EVERY_SERVER:
        return kinds
    return [next(filter(_is_available, kinds), kinds[0])]


def _is_available(kind: ServerKind) -> bool:
    try:
        kind.binary()
    except UnavailableError:
        return False
    return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_kind" not in metafunc.fixturenames:
        return
    kinds = _kinds_of(metafunc.module.__name__)
    if "on_cluster" not in metafunc.fixturenames:
        metafunc.parametrize("server_kind", kinds, ids=[k.name for k in kinds], indirect=True, scope="session")
        return
    places = [(kind, False) for kind in kinds]
    if _module_name(metafunc.module.__name__) in ON_CLUSTER and _single_reason(metafunc.definition) is None:
        places += [(kind, True) for kind in kinds if kind.name == CLUSTER_KIND]
    ids = [f"{kind.name}-cluster" if on_cluster else kind.name for kind, on_cluster in places]
    metafunc.parametrize(("server_kind", "on_cluster"), places, ids=ids, indirect=True, scope="session")


def _module_name(dotted: str) -> str:
    return dotted.rpartition(".")[2]


def _single_reason(item: pytest.Item) -> str | None:
    """Why a test does not run on a cluster; `None` if it does."""
    mark = item.get_closest_marker("single")
    if mark is None:
        return None
    if len(mark.args) != 1 or not isinstance(mark.args[0], str) or mark.kwargs:
        raise pytest.UsageError(f"{item.nodeid}: the mark 'single' needs a reason")
    return mark.args[0]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--list-single", action="store_true", help="list what does not run on a cluster, and why")


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.getoption("--list-single"):
        return
    reasons: dict[str, dict[str, None]] = {}
    for item in session.items:
        reason = _reason_without_cluster(item)
        if reason is not None:
            reasons.setdefault(reason, {})[item.nodeid.partition("[")[0]] = None
    for reason, names in sorted(reasons.items()):
        print(f"\n{reason} ({len(names)})", *names, sep="\n  ")
    # Nothing is run.
    session.items.clear()


def _reason_without_cluster(item: pytest.Item) -> str | None:
    names = getattr(item, "fixturenames", [])
    if "server_kind" not in names:
        return None
    reason = _single_reason(item)
    if reason is None and "on_cluster" not in names:
        return "starts servers of its own"
    if reason is None and _module_name(item.path.stem) not in ON_CLUSTER:
        return "needs executions on all shards"
    return reason


@pytest.fixture(scope="session")
def server_kind(request: pytest.FixtureRequest) -> ServerKind:
    """The kind of server of this test run."""
    kind: ServerKind = request.param
    try:
        kind.binary()
    except UnavailableError as reason:
        pytest.skip(f"{kind.name}: {reason}")
    if not MODULE.exists():
        pytest.fail(f"{MODULE} does not exist: run `make build` first", pytrace=False)
    return kind


class SharedServers:
    """The long-lived servers of this test process, one per kind, started when first needed."""

    def __init__(self) -> None:
        self._running: dict[str, Server] = {}

    def get(self, kind: ServerKind) -> Server:
        server = self._running.get(kind.name)
        if server is None or server.exit_code() is not None:
            server = Server(kind).start()
            self._running[kind.name] = server
        return server

    def discard(self, server: Server) -> None:
        """Drop a server that a test left in a bad state; the next test gets a new one."""
        self._running.pop(server.kind.name, None)
        server.kill_and_clean()

    def stop_all(self) -> None:
        while self._running:
            self._running.popitem()[1].stop()


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[SharedServers]:
    servers = SharedServers()
    yield servers
    servers.stop_all()


class SharedCluster:
    """The long-lived cluster of this test process, started when first needed."""

    def __init__(self) -> None:
        self._running: Cluster | None = None

    def get(self, kind: ServerKind) -> Cluster:
        if self._running is not None and len(self._running.running()) < len(self._running.servers):
            self.discard()
        if self._running is None:
            conf = {"cluster-databases": 16}
            self._running = Cluster(kind, conf=conf, shares=shares_with_named_keys())
            wait_runs(*self._running.servers)
        return self._running

    def discard(self) -> None:
        """Drop a cluster that a test left in a bad state; the next test gets a new one."""
        if self._running is not None:
            cluster, self._running = self._running, None
            cluster.kill_and_clean()

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[SharedCluster]:
    cluster = SharedCluster()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def on_cluster(request: pytest.FixtureRequest) -> bool:
    """Whether `db` is a cluster."""
    return bool(getattr(request, "param", False))


def _remember(request: pytest.FixtureRequest, server: Server) -> None:
    """Attach the log of this server to the report if the test fails."""
    request.node.stash.setdefault(_servers_of_test, []).append(server)


@pytest.fixture
def db(
    request: pytest.FixtureRequest,
    shared_servers: SharedServers,
    shared_cluster: SharedCluster,
    server_kind: ServerKind,
    on_cluster: bool,
) -> Iterator[Database]:
    """The shared server of this kind, or the shared cluster, empty.

    Afterwards checks that nothing crashed and all was cleaned up.
    """
    if on_cluster:
        cluster = shared_cluster.get(server_kind)
        yield from _lend(request, ClusterDatabase(cluster), cluster.servers, shared_cluster.discard)
    else:
        server = shared_servers.get(server_kind)
        yield from _lend(request, Database(server), [server], lambda: shared_servers.discard(server))


def _lend(
    request: pytest.FixtureRequest, database: Database, servers: list[Server], discard: Callable[[], None]
) -> Iterator[Database]:
    for server in servers:
        server.mark_log()
        _remember(request, server)
    pids = [server.pid for server in servers]
    yield database
    try:
        for server in servers:
            crashed = server.exit_code()
            assert crashed is None, f"the server ended with {_exit_words(crashed)} during the test"
        assert [server.pid for server in servers] == pids
        assert database.r.ping()
        database.reset()
    except BaseException:
        discard()
        raise
    finally:
        database.close()


def _exit_words(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@pytest.fixture
def fresh_server(request: pytest.FixtureRequest, server_kind: ServerKind) -> Iterator[Callable[..., Database]]:
    """A factory of servers for this test alone.

    ``fresh_server(load_args={"MaxExecutions": 3}, conf={"appendonly": "yes"}, python=..., env=...)`` starts one and
    returns it as a `Database`. All are stopped after the test, and no worker process may survive them.
    """
    opened: list[Database] = []

    def start(**options: object) -> Database:
        server = Server(server_kind, **options)  # type: ignore[arg-type]
        _remember(request, server)
        database = Database(server.start())
        opened.append(database)
        return database

    yield start
    problems = []
    for database in reversed(opened):
        database.close()
        try:
            database.server.stop()
        except AssertionError as problem:
            problems.append(problem)
    if problems:
        raise problems[0]


@pytest.fixture(scope="module")
def running_cluster(server_kind: ServerKind) -> Iterator[Cluster]:
    """Three servers that are a cluster and have links, for the tests of a module."""
    cluster = Cluster(server_kind)
    wait_runs(*cluster.servers)
    yield cluster
    cluster.stop()


@pytest.fixture
def nodes(running_cluster: Cluster) -> Iterator[list[Database]]:
    """The nodes of a cluster, empty."""
    databases = [Database(server) for server in running_cluster.servers]
    yield databases
    for database in databases:
        database.reset()
        database.close()


@pytest.fixture
def cluster_client(nodes: list[Database]) -> Iterator[redgrease.RedisCluster]:
    """A client of the cluster."""
    client = redgrease.RedisGears(host="127.0.0.1", port=nodes[0].server.port)
    yield client
    client.close()


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The program `redgrease` with a state folder of this test; all servers that it started are stopped afterwards."""
    if not REDGREASE.exists():
        pytest.fail(f"{REDGREASE} does not exist: run `make build` first", pytrace=False)
    cli = Cli(tmp_path)
    yield cli
    cli.stop_all()


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[int]:
    """The port of a server that accepts TLS only; `tmp_path / "ca.pem"` is the certificate of its authority."""
    yield from start_tls_server(tmp_path)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        for server in item.stash.get(_servers_of_test, []):
            log = _interesting(server.new_log() or server.log())
            report.sections.append((f"log of {server.kind.name} (pid {server.pid})", log))


def _interesting(log: str) -> str:
    """The end of a log, and the beginning of a crash report if there is one."""
    lines = log.splitlines()
    crash = next((number for number, line in enumerate(lines) if "BUG REPORT START" in line), None)
    begin = [] if crash is None else [*lines[max(0, crash - 20) : crash + 80], "..."]
    return "\n".join([*begin, *lines[-_LOG_TAIL_LINES:]])
