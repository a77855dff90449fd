"""Wheels of requirements: exported and imported, in data files, and on replicas without a network."""

from __future__ import annotations

import random
import shutil
import zipfile
from pathlib import Path

import pytest
import redis

from .cluster import cluster_with, wait_runs
from .database import Database, flat_map, text
from .resp import Err, Simple
from .test_replication import wait_connected
from .waiting import wait_until

#: No index and no other place to find packages: what pip is configured to use on this machine does not count.
OFFLINE = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1"}

#: Replicas are synchronised without the server's usual wait for further ones.
AT_ONCE = {"repl-diskless-sync-delay": 0}

VERSION = "GB('CommandReader').map(lambda x: __import__('tiny').VERSION).register(trigger='version')"


def wheel(directory: Path, name: str, version: str, needs: str = "", data: bytes = b"") -> Path:
    """A wheel with a module of that name, and with data. The same arguments make the same bytes."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info/"
    needed = f"Requires-Dist: {needs}\n" if needs else ""
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        info + "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}",
        info + "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        info + "RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in {**files, f"{name}.bin": data}.items():
            # Of a fixed time, not of now.
            archive.writestr(zipfile.ZipInfo(file), content)
    return path


@pytest.fixture
def index(tmp_path):
    """A directory with packages, and the environment of a server that finds them there."""
    directory = tmp_path / "index"
    wheel(directory, "tiny", "1.0", needs="below")
    wheel(directory, "below", "2.0")
    wheel(directory, "unrelated", "3.0")
    return directory, {**OFFLINE, "PIP_FIND_LINKS": str(directory)}


def requirements(db) -> dict:
    return {row["Name"]: row for row in map(flat_map, text(db.r.execute_command("RG.PYDUMPREQS")))}


def installed(db) -> list[str]:
    return sorted(path.name for path in Path(db.server.directory, "redgrease-requirements").iterdir())


def forget_files(db) -> None:
    shutil.rmtree(Path(db.server.directory, "redgrease-requirements"))


def test_requirements_are_listed_with_the_wheels_that_each_of_them_needs(fresh_server, index):
    db = fresh_server(env=index[1])
    db.execute(VERSION, "ID", "s", "REQUIREMENTS", "tiny", "unrelated>=3")
    found = requirements(db)
    assert found["tiny"]["Wheels"] == ["below-2.0-py3-none-any.whl", "tiny-1.0-py3-none-any.whl"]
    assert found["unrelated>=3"]["Wheels"] == ["unrelated-3.0-py3-none-any.whl"]
    for row in found.values():
        assert row["IsDownloaded"] == row["IsInstalled"] == row["IsInReqDictionary"] == "yes" and row["RefCount"] == 1
        assert Path(row["Path"]).is_dir()
    (session,) = map(flat_map, text(db.r.execute_command("RG.PYDUMPSESSIONS", "VERBOSE")))
    assert session["requirementInstallationNeeded"] == 1
    assert {row["Name"]: row["Wheels"] for row in map(flat_map, session["requirements"])} == {
        name: row["Wheels"] for name, row in found.items()
    }
    assert "'wheels':['unrelated-3.0-py3-none-any.whl']" in db.registration().pd


def test_what_is_exported_can_be_imported_by_a_server_without_a_network(fresh_server, index):
    source, target = fresh_server(env=index[1]), fresh_server(env=OFFLINE)
    source.execute("GB('ShardsIDReader').run()", "REQUIREMENTS", "tiny", "unrelated")
    facts, pieces = source.r.execute_command("RG.PYEXPORTREQ", "tiny")
    assert flat_map(text(facts))["Name"] == "tiny" and all(isinstance(piece, bytes) for piece in pieces)
    assert "Could not satisfy requirements" in target.refused(VERSION, "REQUIREMENTS", "tiny")
    assert target.wire()("RG.PYIMPORTREQ", *pieces) == b"OK"
    assert requirements(target)["tiny"]["Wheels"] == ["below-2.0-py3-none-any.whl", "tiny-1.0-py3-none-any.whl"]
    target.execute(VERSION, "REQUIREMENTS", "tiny")
    assert target.trigger("version") == ["1.0"]
    # A set with other requirements finds what was imported, too.
    assert target.wire()("RG.PYIMPORTREQ", *source.r.execute_command("RG.PYEXPORTREQ", "unrelated")[1]) == b"OK"
    both = "GB('ShardsIDReader').map(lambda x: [__import__('tiny').VERSION, __import__('unrelated').VERSION]).run()"
    assert text(target.execute(both, "REQUIREMENTS", "unrelated", "tiny")) == [["['1.0', '3.0']"], []]
    assert target.wire()("RG.PYIMPORTREQ", *pieces) == b"OK", "again"


def test_what_is_no_exported_requirement_is_refused(fresh_server, index):
    db = fresh_server(env=index[1])
    db.execute("GB('ShardsIDReader').run()", "REQUIREMENTS", "tiny")
    (piece,) = db.r.execute_command("RG.PYEXPORTREQ", "tiny")[1]
    wire = db.wire()
    for wrong in (b"", b"garbage", piece[:-1], piece[:50], piece + b"x", piece.replace(b"tiny-1.0", b"../y-1.0")):
        error = wire("RG.PYIMPORTREQ", wrong)
        assert isinstance(error, Err) and error.text.startswith("Bad serialization format on reading"), error
    assert wire("RG.PYIMPORTREQ", piece.replace(b"\x03\x04\x06\x04name", b"\x03\x02\x06\x04name")) == Err(
        "Requirement version is not compatible, upgrade to newer RedisGears."
    )
    broken = piece.replace(b"VERSION", b"XERSION")
    assert wire("RG.PYIMPORTREQ", broken) == b"OK", "the set is there already, and is not touched"
    db.r.execute_command("RG.PYEXECUTE", "GB('ShardsIDReader').map(lambda x: __import__('tiny').VERSION).run()",
                         "REQUIREMENTS", "tiny")  # fmt: skip
    assert wire("RG.PYEXPORTREQ", "nothing") == Err("requirement does not exists")
    assert "wrong number of arguments" in str(wire("RG.PYEXPORTREQ"))
    with db.r.pipeline() as pipeline:
        pipeline.execute_command("RG.PYIMPORTREQ", piece)
        (reply,) = pipeline.execute(raise_on_error=False)
    assert isinstance(reply, redis.ResponseError)


def test_a_wheel_that_cannot_be_installed_leaves_nothing(fresh_server, index):
    source, target = fresh_server(env=index[1]), fresh_server(env=OFFLINE)
    source.execute("GB('ShardsIDReader').run()", "REQUIREMENTS", "tiny")
    (piece,) = source.r.execute_command("RG.PYEXPORTREQ", "tiny")[1]
    no_archive = piece.replace(b"PK\x03\x04", b"KP\x03\x04").replace(b"PK\x01\x02", b"KP\x01\x02")
    assert "Could not satisfy requirements" in str(target.wire()("RG.PYIMPORTREQ", no_archive))
    assert requirements(target) == {}
    assert target.wire()("RG.PYIMPORTREQ", piece) == b"OK"


@pytest.mark.parametrize(
    "conf",
    [
        {"save": "3600 1"},
        {"appendonly": "yes"},
        {"appendonly": "yes", "aof-use-rdb-preamble": "no"},
    ],
    ids=["rdb", "aof", "aof without preamble"],
)
@pytest.mark.parametrize("rewritten", [False, True], ids=["", "rewritten"])
def test_a_server_that_restarts_needs_no_network(fresh_server, index, conf, rewritten):
    directory, env = index
    db = fresh_server(env=env, conf=conf)
    db.execute(VERSION, "REQUIREMENTS", "tiny")
    if rewritten and "appendonly" in conf:
        db.r.bgrewriteaof()
        wait_until(
            lambda: db.r.info("persistence")["aof_rewrite_in_progress"], "it is rewritten", until=lambda n: n == 0
        )
        wait_until(lambda: db.r.info("persistence")["aof_rewrite_scheduled"], "it is rewritten", until=lambda n: n == 0)
    if "save" in conf:
        db.r.save()
    shutil.rmtree(directory)
    forget_files(db)
    db.server.kill()
    db.server.start_again()
    db = Database(db.server)
    assert db.trigger("version") == ["1.0"]
    assert requirements(db)["tiny"]["Wheels"] == ["below-2.0-py3-none-any.whl", "tiny-1.0-py3-none-any.whl"]


@pytest.fixture
def one_online(server_kind, index):
    """The shards of a cluster, of which the first one finds packages."""
    with cluster_with(server_kind, envs=[index[1], OFFLINE, OFFLINE]) as cluster:
        wait_runs(*cluster.servers)
        shards = [Database(server) for server in cluster.servers]
        yield shards
        for shard in shards:
            shard.close()


def test_other_shards_need_no_network(one_online, index):
    wheel(index[0], "big", "1.0", needs="tiny", data=random.Random(1).randbytes(3 << 20))
    first, *others = one_online
    version = "GB('ShardsIDReader').map(lambda x: __import__('big').VERSION + __import__('tiny').VERSION)"
    assert first.run(f"{version}.run()", "REQUIREMENTS", "big") == (["1.01.0"] * 3, [])
    first.ok(f"{version.replace('ShardsID', 'Command')}.register(trigger='version')", "REQUIREMENTS", "big", "tiny")
    for shard in one_online:
        assert shard.trigger("version") == ["1.01.0"] * 3
        assert requirements(shard)["big"]["Wheels"] == [
            "below-2.0-py3-none-any.whl",
            "big-1.0-py3-none-any.whl",
            "tiny-1.0-py3-none-any.whl",
        ]
    # Only the shard where a script runs looks for packages.
    assert "unrelated" in others[0].refused(f"{version}.run()", "REQUIREMENTS", "unrelated")


def test_wheels_that_do_not_fit_are_downloaded_again(fresh_server, index):
    """A shard may have another interpreter than the one that its wheels come from."""
    db = fresh_server(env=index[1])
    db.execute(VERSION, "ID", "s", "REQUIREMENTS", "tiny")
    (directory,) = (Path(db.server.directory, "redgrease-requirements", name) for name in installed(db))
    shutil.rmtree(directory / "packages")
    (directory / "wheels" / "tiny-1.0-py3-none-any.whl").rename(directory / "wheels" / "tiny-1.0-cp27-cp27m-win32.whl")
    db.execute(VERSION, "ID", "s", "UPGRADE", "REQUIREMENTS", "tiny")
    assert db.trigger("version") == ["1.0"]
    assert requirements(db)["tiny"]["Wheels"] == ["below-2.0-py3-none-any.whl", "tiny-1.0-py3-none-any.whl"]


@pytest.mark.parametrize("connected", ["before", "after"])
def test_a_replica_needs_no_network(fresh_server, index, connected):
    _directory, env = index
    master = fresh_server(env=env, conf=AT_ONCE)
    replica = fresh_server(env=OFFLINE)
    if connected == "before":
        replica.r.replicaof("127.0.0.1", master.server.port)
        wait_connected(replica)
    master.execute(VERSION, "REQUIREMENTS", "tiny")
    if connected == "after":
        replica.r.replicaof("127.0.0.1", master.server.port)
        wait_connected(replica)
    wait_until(replica.registrations, "the replica has the registration")
    replica.wait_log("session rebuilt")
    replica.r.replicaof("NO", "ONE")
    assert replica.trigger("version") == ["1.0"]


def test_wheels_that_are_too_big_are_downloaded_again_in_the_same_versions(fresh_server, index):
    directory, env = index
    master = fresh_server(env=env, conf=AT_ONCE, load_args={"MaxRequirementBytes": 100})
    replica = fresh_server(env=env, conf={"replicaof": ("127.0.0.1", master.server.port)})
    wait_connected(replica)
    assert "more than MaxRequirementBytes (100)" in str(
        master.execute("GB('ShardsIDReader').run()", "REQUIREMENTS", "tiny") and master.wire()("RG.PYEXPORTREQ", "tiny")
    )
    wheel(directory, "tiny", "1.5")
    master.execute(VERSION, "REQUIREMENTS", "tiny")
    replica.wait_log("session rebuilt")
    replica.r.replicaof("NO", "ONE")
    assert master.trigger("version") == replica.trigger("version") == ["1.0"]


def test_another_wheel_than_the_master_s_is_refused(fresh_server, index):
    directory, env = index
    master = fresh_server(env=env, conf=AT_ONCE, load_args={"MaxRequirementBytes": 100})
    other = directory.with_name("other")
    wheel(other, "tiny", "1.0", needs="below")
    wheel(other, "below", "2.0", needs="tiny")
    replica = fresh_server(
        env={**env, "PIP_FIND_LINKS": str(other)}, conf={"replicaof": ("127.0.0.1", master.server.port)}
    )
    wait_connected(replica)
    master.execute(VERSION, "REQUIREMENTS", "tiny")
    replica.wait_log("below-2.0-py3-none-any.whl is not the wheel that the master has")


def test_what_no_session_needs_any_more_is_removed(fresh_server, index):
    db = fresh_server(env=index[1])
    db.execute(VERSION, "ID", "s", "REQUIREMENTS", "tiny")
    db.execute(VERSION, "ID", "s", "UPGRADE", "REQUIREMENTS", "tiny", "unrelated")
    assert set(requirements(db)) == {"tiny", "unrelated"}
    wait_until(lambda: installed(db), "the first set is gone", until=lambda names: len(names) == 1)
    assert db.trigger("version") == ["1.0"]
    db.execute(VERSION, "ID", "s", "UPGRADE", "FORCE_REINSTALL_REQUIREMENTS", "REQUIREMENTS", "tiny", "unrelated")
    wait_until(lambda: installed(db), "the second set is gone", until=lambda names: len(names) == 1)
    assert db.trigger("version") == ["1.0"]
    db.unregister(db.registration().id)
    wait_until(lambda: installed(db), "the last set is gone", until=lambda names: names == [])
    assert requirements(db) == {}


def test_a_forced_installation_whose_script_fails_leaves_the_old_one(fresh_server, index):
    db = fresh_server(env=index[1])
    db.execute(VERSION, "ID", "s", "REQUIREMENTS", "tiny")
    before = requirements(db)["tiny"]["Path"]
    db.refused("1 / 0", "ID", "s", "UPGRADE", "FORCE_REINSTALL_REQUIREMENTS", "REQUIREMENTS", "tiny")
    assert requirements(db)["tiny"]["Path"] == before
    wait_until(lambda: installed(db), "the new one is gone", until=lambda names: len(names) == 1)
    assert db.trigger("version") == ["1.0"]


def test_servers_that_share_a_directory_do_not_remove_what_the_other_one_uses(fresh_server, index, tmp_path):
    shared = {"RequirementsDir": tmp_path / "shared"}
    one, other = (fresh_server(env=index[1], load_args=shared) for _ in range(2))
    for db in (one, other):
        db.execute(VERSION, "ID", "s", "REQUIREMENTS", "tiny")
    (directory,) = (tmp_path / "shared").iterdir()
    one.unregister(one.registration().id)
    one.execute(VERSION, "ID", "s", "REQUIREMENTS", "unrelated")
    wait_until(
        lambda: list((tmp_path / "shared").iterdir()), "both sets are there", until=lambda found: len(found) == 2
    )
    one.execute("GB('ShardsIDReader').run()")
    other.unregister(other.registration().id)
    wait_until(directory.exists, "nobody uses it any more", until=lambda exists: not exists)


def test_what_cannot_be_installed_may_be_what_the_interpreter_has(fresh_server):
    db = fresh_server(env=OFFLINE)
    script = "import cloudpickle\nGB('ShardsIDReader').map(lambda x: cloudpickle.__name__).run()"
    assert text(db.execute(script, "REQUIREMENTS", "cloudpickle")) == [["cloudpickle"], []]
    assert "has no wheels" in str(db.wire()("RG.PYEXPORTREQ", "cloudpickle"))


def test_wheels_are_not_sent_while_clients_are_paused(fresh_server, index):
    db = fresh_server(env=index[1])
    replica = fresh_server(env=OFFLINE, conf={"replicaof": ("127.0.0.1", db.server.port)})
    wait_connected(replica)
    waiting = db.wire()
    waiting.send("RG.PYEXECUTE", VERSION, "REQUIREMENTS", "tiny")
    db.wait_log("requirements are being installed")
    db.r.client_pause(3000, all=False)
    assert waiting.read() == Simple("OK")
    replica.wait_log("session rebuilt")
    assert db.trigger("version") == ["1.0"]


def test_a_server_that_becomes_a_replica_while_it_sends_wheels_answers_its_clients(fresh_server, index):
    master, db = fresh_server(env=index[1], conf=AT_ONCE), fresh_server(env=index[1])
    waiting = db.wire()
    waiting.send("RG.PYEXECUTE", VERSION, "REQUIREMENTS", "tiny")
    db.wait_log("requirements are being installed")
    db.r.replicaof("127.0.0.1", master.server.port)
    waiting.read()
    wait_connected(db)
    master.execute(VERSION, "REQUIREMENTS", "tiny")
    wait_until(db.registrations, "the replica has the registration of its master")
    db.r.replicaof("NO", "ONE")
    assert db.trigger("version") == ["1.0"]


def test_only_users_who_may_load_programs_import_requirements(fresh_server, index):
    db = fresh_server(env=index[1])
    db.execute("GB('ShardsIDReader').run()", "REQUIREMENTS", "tiny")
    pieces = db.r.execute_command("RG.PYEXPORTREQ", "tiny")[1]
    db.r.execute_command("ACL", "SETUSER", "reader", "on", ">p", "~*", "+@read", "+rg.trigger")
    other = redis.Redis(port=db.server.port, username="reader", password="p")
    with pytest.raises(redis.exceptions.NoPermissionError):
        other.execute_command("RG.PYIMPORTREQ", *pieces)
