"""Functions on all shards of a real cluster: results, registrations, and what happens when a shard fails."""

from __future__ import annotations

import collections
import signal
import threading
from collections.abc import Iterator

import pytest
import redis
import redis.cluster
from redis.crc import key_slot

from .cluster import Cluster, wait_links, wait_runs
from .database import Database
from .servers import Server, ServerKind
from .waiting import wait_until

WORDS = ["apple", "pear", "plum", "fig"]


def fill(server: Server, count: int) -> dict[str, str]:
    """Strings of words on all shards."""
    values = {f"text:{number}": f"{WORDS[number % 4]} {WORDS[number % 3]}" for number in range(count)}
    with redis.cluster.RedisCluster(host="127.0.0.1", port=server.port) as client:
        pipeline = client.pipeline()
        for key, value in values.items():
            pipeline.set(key, value)
        pipeline.execute()
    return values


@pytest.fixture
def shards(running_cluster: Cluster, nodes: list[Database]) -> list[Database]:
    """Three shards that have links to each other."""
    wait_runs(*running_cluster.servers)
    return nodes


@pytest.fixture
def cluster_that_changes(server_kind: ServerKind) -> Iterator[Cluster]:
    """A cluster for one test, which goes on without one of its shards."""
    cluster = Cluster(server_kind, conf={"cluster-require-full-coverage": "no", "appendonly": "yes"}, proxied=True)
    wait_runs(*cluster.servers)
    yield cluster
    cluster.kill_and_clean()


def test_a_run_reads_the_keys_of_all_shards(shards):
    values = fill(shards[0].server, 300)
    words = collections.Counter(word for value in values.values() for word in value.split())
    count = "GB().flatmap(lambda r: r['value'].split()).countby().map(lambda r: (r['key'], r['value'])).run('text:*')"
    for shard in shards:
        assert sorted(shard.results(count)) == sorted(str(pair) for pair in words.items())
    assert shards[1].results("GB().count().run('text:*')") == ["300"]


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_key_that_a_reader_names_is_read_on_its_shard_only(shards, asked):
    fill(shards[0].server, 12)
    with redis.cluster.RedisCluster(host="127.0.0.1", port=shards[0].server.port) as client:
        client.xadd("stream", {"f": "v"}, id="1-0")
    shard = shards[asked]
    one = "GB('KeysReader').map(lambda r: (r['key'], r['value'])).run('text:4', noScan=True)"
    assert shard.run(one) == (["('text:4', 'apple pear')"], [])
    assert shard.run("GB('KeysReader').map(lambda r: r['type']).run('no-such-key', noScan=True)") == (["empty"], [])
    assert shard.run("GB('KeysReader').count().run('text:4')") == (["1"], [])
    assert shard.run("GB('StreamReader').map(lambda r: r['id']).run('stream')") == (["1-0"], [])
    assert shard.run("GB('StreamReader').run('no-such-stream')") == ([], [])


def test_each_key_of_a_group_is_on_its_shard(shards):
    fill(shards[0].server, 60)
    key = "'seen:' + r['key']"
    shards[0].results(f"GB().repartition(lambda r: {key}).foreach(lambda r: execute('set', {key}, '1')).run('text:*')")
    assert sum(shard.r.execute_command("DBSIZE") for shard in shards) == 120


def test_aggregations_are_those_of_one_server(shards):
    fill(shards[0].server, 100)
    lengths = "GB().map(lambda r: len(r['value']))"
    expected = [len(f"{WORDS[n % 4]} {WORDS[n % 3]}") for n in range(100)]
    results = shards[2].results
    total = results(f"{lengths}.aggregate(0, lambda a, x: a + x, lambda a, x: a + x).run('text:*')")
    assert total == [str(sum(expected))]
    assert results(f"{lengths}.distinct().sort().run('text:*')") == sorted({str(n) for n in expected}, key=int)
    assert results("GB().map(lambda r: int(r['key'][5:])).sort().limit(3).run('text:*')") == ["0", "1", "2"]
    groups = "GB().groupby(lambda r: r['value'], lambda k, a, r: (a or 0) + 1).map(lambda r: r['value'])"
    assert float(results(f"{groups}.avg().run('text:*')")[0]) == pytest.approx(100 / 12)


def test_each_shard_has_its_id(shards):
    ids = shards[0].results("GB('ShardsIDReader').run()")
    assert sorted(ids) == sorted(shard.r.execute_command("CLUSTER", "MYID").decode() for shard in shards)


def test_an_error_on_another_shard_is_in_the_answer(shards):
    fill(shards[0].server, 30)
    results, errors = shards[0].run("GB().map(lambda r: 1 / 0).run('text:*')")
    assert results == []
    assert len(errors) == 3
    assert all("ZeroDivisionError" in error for error in errors)


def test_a_trigger_begins_on_all_shards(shards):
    shards[0].ok("GB('CommandReader').map(lambda r: r[1]).register(trigger='echo')")
    for shard in shards:
        assert shard.trigger("echo", "hi") == ["hi"] * 3


def test_registrations_are_on_all_shards(shards):
    shards[0].ok("GB('CommandReader').count().register(trigger='one')")
    ids = [{found.id for found in shard.registrations()} for shard in shards]
    assert len(ids[0]) == 1
    assert ids[0] == ids[1] == ids[2]
    assert "trigger already registered" in shards[2].failure("GB('CommandReader').count().register(trigger='one')")
    shards[1].unregister(ids[0].pop())
    assert [shard.registrations() for shard in shards] == [[], [], []]


def test_events_act_on_the_shards_of_their_keys(shards):
    shards[0].ok(
        "GB().repartition(lambda r: 'n:' + r['key']).foreach(lambda r: execute('incr', 'n:' + r['key']))"
        ".register(prefix='text:*', eventTypes=['set'])"
    )
    fill(shards[0].server, 50)
    wait_until(
        lambda: sum(shard.r.execute_command("DBSIZE") for shard in shards),
        "each event has counted",
        until=lambda count: count == 100,
    )


def test_the_hash_tag_of_a_shard_is_that_of_its_first_slot_also_after_it_has_moved(cluster_that_changes):
    cluster = cluster_that_changes
    shards = [Database(server) for server in cluster.servers]
    ids = [cluster.id_of(server) for server in cluster.servers]
    shards[0].ok("GB('CommandReader').map(lambda x: hashtag()).register(trigger='tag', mode='sync')")

    def tags_and_slots() -> list[tuple[int, int]]:
        rows = shards[0].r.execute_command("CLUSTER", "SLOTS")
        first = [min(row[0] for row in rows if row[2][2].decode() == id) for id in ids]
        return [(key_slot(shard.trigger("tag")[0].encode()), slot) for shard, slot in zip(shards, first)]

    assert all(tag == slot for tag, slot in tags_and_slots())
    own = "GB('PythonReader').run(lambda: iter([execute('SET', 'own{%s}' % hashtag(), hashtag())]))"
    assert shards[0].run(own) == (["OK"] * 3, [])
    first = tags_and_slots()[1][1]
    cluster.move_slots(cluster.servers[1], cluster.servers[0], [first])
    moved = [tag_and_slot[1] for tag_and_slot in tags_and_slots()]
    assert moved[1] == first + 1
    wait_until(tags_and_slots, "the tag is that of the next slot", until=lambda seen: seen[1] == (first + 1, first + 1))
    for shard in shards:
        shard.close()


def test_a_command_of_keys_in_several_slots_is_refused_and_harms_no_other(shards):
    def own(count: int) -> list[str]:
        tag = shards[0].results("GB('PythonReader').run(lambda: iter([hashtag()]), mode='async_local')")[0]
        return [f"{number}:{{{tag}}}" for number in range(count)]

    def run(call: str) -> tuple[list, list[str]]:
        return shards[0].run(f"GB('PythonReader').map(lambda _: {call}).run(lambda: iter([1]), mode='async_local')")

    one, two = own(2)
    others = ["first", "second"]
    for call in (
        f"execute('MGET', '{one}', '0')",
        f"execute('EVAL', 'return 1', 2, '{one}', '0')",
        "execute('DEL', 'a', 'b')",
    ):
        _, [error] = run(call)
        assert "CROSSSLOT" in error, call
        assert run(f"execute('MSET', '{one}', 'a', '{two}', 'b')") == (["OK"], [])
        assert run(f"execute('MGET', '{one}', '{two}')") == (["['a', 'b']"], [])
    shards[0].ok(f"GB('CommandReader').map(lambda _: execute('MGET', *{others!r})).register(trigger='t', mode='sync')")
    assert "CROSSSLOT" in shards[0].trigger_refused("t")
    assert run(f"execute('GET', '{one}')") == (["a"], [])


def test_an_execution_that_is_dropped_is_dropped_on_all_shards(shards):
    execution = shards[0].start("GB('PythonReader').run(lambda: iter([1]))")
    for shard in shards:
        shard.wait_status(execution, "done")
    shards[0].r.execute_command("RG.DROPEXECUTION", execution)
    for shard in shards:
        wait_until(shard.executions, "it is dropped", until=lambda left: left == [])


def test_a_trigger_on_a_key_is_redirected_to_its_shard_with_and_without_results_as_values(shards):
    shards[0].ok("GB('CommandReader').map(lambda x: hashtag()).register(trigger='where', mode='sync')")
    for words in (["RG.TRIGGERONKEY"], ["RG.WITHCODEC", 1, "RG.TRIGGERONKEY"]):
        moved, answered = [], 0
        for shard in shards:
            try:
                [_] = shard.r.execute_command(*words, "where", "some-key")
                answered += 1
            except redis.exceptions.MovedError as error:
                moved.append(error.port)
        assert answered == 1 and len(moved) == 2 and len(set(moved)) == 1, words


def test_an_execution_is_shown_with_its_parts(shards):
    fill(shards[0].server, 10)
    identifier = shards[0].start("GB().count().run('text:*')")
    shards[0].wait_status(identifier, "done")
    parts = shards[0].r.execute_command("RG.GETEXECUTION", identifier, "CLUSTER")
    assert len({part[1] for part in parts}) == 3
    assert all(part[3][1] == b"done" for part in parts)


def in_background(shard: Database, script: str) -> tuple[threading.Thread, list]:
    answers: list = []
    thread = threading.Thread(target=lambda: answers.append(shard.run(script)))
    thread.start()
    return thread, answers


def answer(shard: Database, trigger: str) -> object:
    """What a trigger returns, or its error."""
    try:
        return shard.trigger(trigger)
    except redis.ResponseError as error:
        return str(error)


#: Each record takes a while.
SLOW = """import time
GB().map(lambda r: time.sleep(0.02) or r['key']).groupby(lambda k: k, lambda k, a, r: 1).run('text:*')
"""


def test_a_shard_that_is_killed_ends_the_run_with_its_name(cluster_that_changes):
    cluster = cluster_that_changes
    fill(cluster.servers[0], 600)
    shard, victim = Database(cluster.servers[0]), cluster.servers[1]
    victim_id = cluster.id_of(victim)
    shard.ok("GB('CommandReader').count().register(trigger='one')")
    thread, answers = in_background(shard, SLOW)
    wait_until(shard.executions, "it runs", until=lambda found: any(one.status == "running" for one in found))
    victim.kill()
    thread.join(20)
    assert not thread.is_alive()
    [(_, errors)] = answers
    assert any("SHARDLOST" in error and victim_id in error for error in errors), errors
    victim.start_again()
    wait_until(
        lambda: answer(shard, "one"), "the shard takes part again", until=lambda found: found == ["3"], deadline=30
    )
    shard.close()


def test_a_link_that_is_cut_and_heals_loses_nothing(cluster_that_changes):
    cluster = cluster_that_changes
    fill(cluster.servers[0], 300)
    shard = Database(cluster.servers[0])
    thread, answers = in_background(shard, SLOW)
    wait_until(shard.executions, "it runs", until=lambda found: any(one.status == "running" for one in found))
    cluster.isolate(cluster.servers[1])
    healed = threading.Timer(3, cluster.heal)
    healed.start()
    thread.join(60)
    healed.join()
    [(results, errors)] = answers
    assert (len(results), errors) == (300, [])
    shard.close()


def test_a_shard_that_is_stopped_is_told_from_a_slow_one(cluster_that_changes):
    cluster = cluster_that_changes
    fill(cluster.servers[0], 600)
    shard, stopped = Database(cluster.servers[0]), cluster.servers[2]
    slow = "import time\nGB('ShardsIDReader').map(lambda r: time.sleep(8) or r).run()"
    results, errors = shard.run(slow)
    assert (len(results), errors) == (3, [])
    thread, answers = in_background(shard, SLOW)
    wait_until(shard.executions, "it runs", until=lambda found: any(one.status == "running" for one in found))
    stopped.process.send_signal(signal.SIGSTOP)
    thread.join(30)
    stopped.process.send_signal(signal.SIGCONT)
    assert not thread.is_alive()
    [(_, errors)] = answers
    assert any("PEERSILENT" in error for error in errors), errors
    shard.close()


def test_a_run_during_resharding_reads_keys_that_do_not_move_exactly_once(cluster_that_changes):
    cluster = cluster_that_changes
    first, second, third = cluster.servers
    shard = Database(first)
    keys = list(fill(first, 900))
    rows = shard.r.execute_command("CLUSTER", "SLOTS")
    spans = [(begin, end) for begin, end, master, *_ in rows if master[2].decode() == cluster.id_of(second)]
    slots = sorted({key_slot(key.encode()) for key in keys})
    moving = {slot for slot in slots[::4] if any(begin <= slot <= end for begin, end in spans)}
    script = (
        "import time\n"
        "def name(r):\n    time.sleep(0.002)\n    return r['key']\n"
        "GB('KeysReader').foreach(lambda r: execute('SET', 'begun{%s}' % hashtag(), 1)).map(name).run('text:*')"
    )
    thread, replies = in_background(shard, script)
    with second.client() as client:
        wait_until(lambda: client.keys("begun*"), "the second shard reads")
    cluster.move_slots(second, third, sorted(moving))
    thread.join()
    results, errors = replies[0]
    assert errors == []
    read = collections.Counter(results)
    assert {key: read[key] for key in keys if key_slot(key.encode()) not in moving and read[key] != 1} == {}
    assert set(read) <= set(keys) and max(read.values()) <= 2
    # Afterwards each is read once.
    assert shard.run("GB('KeysReader').map(lambda r: r['key']).count().run('text:*')") == ([str(len(keys))], [])
    shard.close()


def test_registrations_fire_on_a_replica_that_was_promoted(server_kind):
    cluster = Cluster(server_kind, replicas=1)
    try:
        wait_links(*cluster.servers[:3])
        old, new = cluster.servers[0], cluster.servers[3]
        with Database(old).r as client:
            client.execute_command("RG.PYEXECUTE", "GB().foreach(lambda r: execute('INCR', '{a}n')).register('{a}k*')")
            client.execute_command("RG.PYEXECUTE", "GB('CommandReader').register(trigger='t', mode='async')")
        replica = Database(new)
        wait_until(replica.registrations, "the replica has both", until=lambda found: len(found) == 2)
        cluster.take_over(new, old)
        wait_links(*cluster.servers[1:4])
        with redis.cluster.RedisCluster(host="127.0.0.1", port=new.port) as client:
            for number in range(20):
                client.set(f"{{a}}k{number}", "v")
            wait_until(lambda: client.get("{a}n"), "all events were handled once", until=lambda seen: seen == b"20")
        # The promoted shard takes part in executions, and begins them.
        wait_runs(*cluster.servers[1:4])
        for server in cluster.servers[1:4]:
            with server.client() as client:
                assert len(client.execute_command("RG.TRIGGER", "t")) == 3
    finally:
        cluster.kill_and_clean()
