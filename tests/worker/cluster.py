"""Plays the servers of a cluster for real worker processes: each is a shard, and the test moves the records."""

import collections
import queue
import time

from . import frames
from .server import Server, decoded, encoded

#: Seconds for an execution: machines of tests are slow, and a deadlock lasts forever.
DEADLINE = 60.0
SLOTS = 16384


class Shard(Server):
    """A worker whose frames about executions come with its number."""

    def __init__(self, number, arrived, **options):
        self.number, self.came = number, arrived
        super().__init__(**options)

    def _store(self, frame):
        if "exec" in frame:
            self.came.put((self.number, frame))
        else:
            super()._store(frame)


class Cluster:
    """Workers of some shards."""

    def __init__(self, size, **options):
        self.came = queue.Queue()
        self.shards = []
        #: Whether an execution has failed: what it left behind would disturb others.
        self.is_broken = False
        self._numbers = iter(range(1 << 40, 1 << 60))
        try:
            for number in range(size):
                self.shards.append(Shard(number, self.came, **options))
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for shard in self.shards:
            shard.close()

    def plans(self, source, size=None, **options):
        """Run a script that runs once on each of the first shards; the numbers of the plan there."""
        return [shard.plan(source, **options) for shard in self.shards[:size]]

    def run(self, plans, inputs, rng, collected, **options):
        """Run a plan on as many shards as there are plans; the ``Execution``, which has ended."""
        execution = Execution(self, next(self._numbers), plans, inputs, rng, collected, **options)
        self.is_broken = True
        execution.run()
        self.is_broken = False
        return execution

    def run_alone(self, plan, values):
        """Run a plan on the first shard, without a route; results and errors."""
        shard = self.shards[0]
        exec_ = shard.start(plan, values, flags=frames.LAST | frames.TAGGED | frames.TRACEBACK)
        results = []
        while True:
            _, frame = self.came.get(timeout=DEADLINE)
            assert frame["exec"] == exec_, frame
            if frame["kind"] in ("output", "done"):
                results += decoded(frame["records"])
            if frame["kind"] == "done":
                return results, [error.decode() for error in frame["errors"]]


def ranges(rng, shards):
    """All slots, in ranges of random lengths, each with the position of its shard."""
    bounds = sorted({0, SLOTS, *(rng.randrange(SLOTS) for _ in range(rng.randint(shards, 3 * shards)))})
    return [(first, behind - 1, rng.randrange(shards)) for first, behind in zip(bounds, bounds[1:])]


def owner_in(slots):
    """The function that returns the shard of a slot."""

    def owner(slot):
        return next(shard for first, last, shard in slots if first <= slot <= last)

    return owner


class Execution:
    """One execution on several shards, and what is on its way between them.

    It does what the servers do, in random order: it feeds records, delivers what moved (several frames as one,
    sometimes), gives room back, tells which stages have ended and which are closed. It checks all frames of workers.
    """

    def __init__(
        self, cluster, number, plans, inputs, rng, collected, *, slots=None, window=1 << 20, flags=0, first_step=0,
        patience=0.3,
    ):  # fmt: skip
        self.cluster, self.number, self.rng, self.patience = cluster, number, rng, patience
        self.size, self.stages = len(plans), len(collected)
        #: For each stage but the first whether all of its records come to shard 0.
        self.collected = [True, *collected]
        self.window = window
        self.slots = ranges(rng, self.size) if slots is None else slots
        self.flags = flags | frames.TRACEBACK | frames.TAGGED
        self.plans, self.first_step = plans, first_step
        stages, shards = range(self.stages + 1), range(self.size)
        self.inputs = [self._split(values) for values in inputs]
        #: What moved and was not delivered, by stage and shard: source, number of records, bytes.
        self.moved = [[collections.deque() for _ in shards] for _ in stages]
        #: Sizes of what was delivered and not consumed: the source and bytes of each part.
        self.delivered = [[collections.deque() for _ in shards] for _ in stages]
        self.rooms = []
        #: Bytes that each shard has sent for a stage and got no room for, and the number of records of the last frame.
        self.outside = [[0 for _ in shards] for _ in stages]
        self.most_outside = 0
        self.stage_ended = [set() for _ in stages]
        self.last_sent = [set() for _ in stages]
        self.closed = [set() for _ in stages]
        self.close_sent = set()
        self.stopped = set()
        self.results = [[] for _ in shards]
        self.errors = [None for _ in shards]
        self.done = {}
        self.sequence = []

    def _split(self, values):
        batches = []
        while values:
            size = self.rng.randint(1, 6)
            batches.append(values[:size])
            values = values[size:]
        return collections.deque(batches)

    # ---- what the servers send ------------------------------------------------------------------------------------

    def send(self, shard, data):
        self.cluster.shards[shard].send(data)

    def start(self):
        for shard in range(self.size):
            first = self.inputs[shard].popleft() if self.inputs[shard] and self.rng.random() < 0.5 else []
            flags = self.flags | (0 if self.inputs[shard] else frames.LAST)
            self.send(shard, frames.route(self.number, shard, self.size, self.slots, self.window))
            values = [encoded(value) for value in first]
            self.send(
                shard, frames.start(self.number, self.plans[shard], values, flags=flags, first_step=self.first_step)
            )

    def actions(self):
        """What can be done now."""
        for shard, batches in enumerate(self.inputs):
            if batches:
                yield self.feed, shard
        for stage in range(1, self.stages + 1):
            for shard in range(self.size):
                if self.moved[stage][shard]:
                    yield self.deliver, stage, shard
                elif (
                    self.size > 1
                    and shard not in self.last_sent[stage]
                    and self.stage_ended[stage] >= set(range(self.size)) - {shard}
                ):
                    yield self.deliver_last, stage, shard
            needed = {0} if self.collected[stage] else set(range(self.size))
            if stage not in self.close_sent and self.closed[stage] >= needed:
                yield self.close, stage
        for room in self.rooms:
            yield self.give_room, room

    def feed(self, shard):
        batch = self.inputs[shard].popleft()
        last = not self.inputs[shard]
        values = [encoded(value) for value in batch]
        self.send(shard, frames.feed(self.number, [] if shard in self.stopped else values, last))

    def deliver(self, stage, shard):
        waiting = self.moved[stage][shard]
        parts = [waiting.popleft() for _ in range(self.rng.randint(1, len(waiting)))]
        others = set(range(self.size)) - {shard}
        last = not waiting and self.stage_ended[stage] >= others and self.rng.random() < 0.5
        if last:
            self.last_sent[stage].add(shard)
        count, data = sum(part[1] for part in parts), b"".join(part[2] for part in parts)
        self.delivered[stage][shard].append([(source, len(data)) for source, _, data in parts])
        self.send(shard, frames.arrived(self.number, stage, frames.varint(count) + frames.blob(data), last))

    def deliver_last(self, stage, shard):
        self.last_sent[stage].add(shard)
        self.send(shard, frames.arrived(self.number, stage, frames.records([]), True))

    def give_room(self, room):
        self.rooms.remove(room)
        source, stage, size = room
        self.outside[stage][source] -= size
        self.send(source, frames.room(self.number, stage, size))

    def close(self, stage):
        self.close_sent.add(stage)
        for shard in range(self.size):
            self.send(shard, frames.close_stage(self.number, stage))

    # ---- what the workers send ------------------------------------------------------------------------------------

    def take(self, shard, frame):
        assert frame["exec"] == self.number, f"{frame} after the end of its execution"
        self.sequence.append((shard, frame["kind"], frame.get("stage")))
        kind, stage = frame["kind"], frame.get("stage")
        assert shard not in self.done, f"{frame} after the end on shard {shard}"
        assert stage is None or 1 <= stage <= self.stages, frame
        if kind == "moved":
            to, (count, data) = frame["shard"], frame["records"]
            assert to != shard and to < self.size and count > 0 and data, frame
            assert shard not in self.stage_ended[stage], f"{frame} after the end of its stage on shard {shard}"
            assert not self.collected[stage] or to == 0, frame
            before = self.outside[stage][shard]
            assert before + len(data) <= self.window or (before == 0 and count == 1), (
                f"shard {shard} has sent {before} and {len(data)} bytes for stage {stage}, of {self.window}"
            )
            self.outside[stage][shard] += len(data)
            self.most_outside = max(self.most_outside, self.outside[stage][shard])
            self.moved[stage][to].append((shard, count, data))
        elif kind == "taken":
            parts = self.delivered[stage][shard].popleft()
            assert frame["bytes"] == sum(size for _, size in parts), frame
            self.rooms += [(source, stage, size) for source, size in parts]
        elif kind == "stage_ended":
            assert shard not in self.stage_ended[stage], frame
            assert stage == 1 or shard in self.stage_ended[stage - 1], frame
            self.stage_ended[stage].add(shard)
        elif kind == "stage_closed":
            assert shard not in self.closed[stage], frame
            self.closed[stage].add(shard)
        elif kind == "stop":
            self.stopped.add(shard)
        elif kind in ("output", "done"):
            self.results[shard] += decoded(frame["records"])
            if kind == "done":
                assert all(shard in ended for ended in self.stage_ended[1:]) or frame["aborted"] or frame["errors"]
                self.done[shard] = frame
                self.errors[shard] = [error.decode() for error in frame["errors"]]
        else:
            assert kind in ("consumed", "progress", "parked"), frame

    def take_all(self, wait):
        """Take the frames that have come; wait so long for the first one."""
        try:
            self.take(*self.cluster.came.get(timeout=wait) if wait else self.cluster.came.get_nowait())
            while True:
                self.take(*self.cluster.came.get_nowait())
        except queue.Empty:
            return

    def run(self, until=lambda execution: len(execution.done) == execution.size):
        """Start, and go on until the end."""
        self.start()
        self.go_on(until)

    def go_on(self, until=lambda execution: len(execution.done) == execution.size):
        """Do what servers do, in random order."""
        deadline = time.monotonic() + DEADLINE
        while not until(self):
            assert time.monotonic() < deadline, f"no end in {DEADLINE} s: {self.state()}"
            actions = list(self.actions())
            if not actions:
                self.take_all(1.0)
                self.check_alive()
            elif self.rng.random() < self.patience:
                self.take_all(0.001)
            else:
                chosen, *args = self.rng.choice(actions)
                chosen(*args)
                self.take_all(None)

    def check_alive(self):
        for shard in self.cluster.shards[: self.size]:
            assert shard.process.poll() is None, f"shard {shard.number} has ended: {shard.process.stderr.read()}"

    def state(self):
        return {
            "done": sorted(self.done),
            "stage_ended": self.stage_ended,
            "last_sent": self.last_sent,
            "moved": [[len(one) for one in stage] for stage in self.moved],
            "delivered": [[len(one) for one in stage] for stage in self.delivered],
            "outside": self.outside,
            "sequence": self.sequence[-20:],
        }
