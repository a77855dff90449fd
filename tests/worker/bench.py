"""Measures one worker without a server: ``python -m tests.worker.bench``.

Each row is named after its question. The bare socket is a process that only reads and writes the same bytes,
measured in the same run: the additional time of a trigger is ours.

Learned on two virtual cores with CPython 3.11, otherwise idle (the numbers of a busy host are two to three times as high):

- a trigger costs no more than the bare socket (30-40 us; a thread that reads, runs and writes by itself has nothing to
  hand over), and 1.7 us in a burst of 50, because all results of a burst leave in one write;
- sequential ``execute`` is the socket's round trip again (25-30 us). Where answers are slow, 50 triggers that each wait 150 us
  take 220 us each one by one, 80 us each with three threads, 44 with eight: so the next one begins while one waits;
- 200,000 records of nine words: 0.30 us per record for ``map`` and ``aggregate``, of which 0.2 are the making of the
  record's dictionary; 1.1 us for the word count, nearly all of it ``str.split`` and one C pass that counts;
- a worker is ready 28 ms after its start, of which cloudpickle has 10, and takes 15 MB, of which the interpreter has 9.
"""

# ruff: noqa: E501 (scripts and tables read better in one line)

import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import time

from redgrease import _native

from . import frames

ECHO = "import os,sys\nfd=int(sys.argv[1])\nwhile True:\n  data=os.read(fd,1<<20)\n  os.write(fd,data)\n"


class Peer:
    """A process at the other end of a socket pair."""

    def __init__(self, command):
        self.socket, theirs = socket.socketpair()
        self.socket.sendall(b"S")  # no shared memory
        fd = theirs.fileno()
        self.process = subprocess.Popen([*command, str(fd)], pass_fds=[fd])
        theirs.close()
        self.buffer = bytearray()

    def frame(self):
        while True:
            if len(self.buffer) >= 4:
                (length,) = struct.unpack_from("<I", self.buffer)
                if len(self.buffer) >= 4 + length:
                    body = bytes(self.buffer[4 : 4 + length])
                    del self.buffer[: 4 + length]
                    return body
            self.buffer += self.socket.recv(1 << 20)

    def wait_for(self, kind):
        while True:
            body = self.frame()
            if body[0] == kind:
                return frames.parse(body)

    def close(self):
        self.process.kill()
        self.process.wait()


def worker(threads=3):
    peer = Peer([sys.executable, "-m", "redgrease.worker", "--fd"])
    peer.socket.sendall(frames.hello(threads=threads))
    peer.wait_for(65)
    return peer


def plan(peer, source):
    peer.socket.sendall(frames.script(1, 1, source.encode()))
    made = None
    while True:
        frame = frames.parse(peer.frame())
        if frame["kind"] == "call":
            made = frame["plan"]
            peer.socket.sendall(frames.reply(frame["call"], value=_native.dumps("id")))
        if frame["kind"] == "script_done":
            assert frame["error"] is None, frame["error"]
            return made


def timed(work, n=7):
    times = []
    for _ in range(n):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times), min(times)


def show(name, measured, per, unit="us"):
    median, best = (value / per * 1e6 for value in measured)
    print(f"{name:58} median {median:9.2f} {unit}   best {best:9.2f} {unit}", flush=True)


def round_trips(peer, data, kind, answers=None):
    """A round trip of the same bytes, until a frame of that kind is back."""
    send, frame = peer.socket.sendall, peer.frame

    def work():
        for _ in range(2000):
            send(data)
            while True:
                body = frame()
                if body[0] == kind:
                    break
                if answers is not None and body[0] == frames.CALL:
                    send(answers(frames.parse(body)))

    return work


def bursts(peer, data, count, kind):
    def work():
        for _ in range(40):
            peer.socket.sendall(data)
            left = count
            while left:
                if peer.frame()[0] == kind:
                    left -= 1

    return work


def turns(peer, starts, answer, pause):
    """Triggers that each execute once, at a server that answers once in a turn of its loop."""

    def work():
        peer.socket.sendall(starts)
        left = 50
        while left:
            answers = []
            bodies = [peer.frame()]
            while len(peer.buffer) >= 4 or select.select([peer.socket], [], [], 0)[0]:
                bodies.append(peer.frame())
            for body in bodies:
                if body[0] == frames.CALL:
                    answers.append(answer(frames.parse(body)))
                left -= body[0] == frames.DONE
            until = time.perf_counter() + pause
            while time.perf_counter() < until:
                pass
            if answers:
                peer.socket.sendall(b"".join(answers))

    return work


def bulk(peer, number, batches):
    """One execution over batches, with a window as the server has it."""
    exec_ = iter(range(1, 1 << 40))

    def work():
        number_ = next(exec_)
        queue = list(batches)
        queue.reverse()
        window = 4
        peer.socket.sendall(frames.start(number_, number, (), flags=0))
        while True:
            while queue and window:
                data = queue.pop()
                peer.socket.sendall(frames.encoded_feed(number_, data, last=not queue))
                window -= 1
            body = peer.frame()
            if body[0] == frames.CONSUMED:
                window += 1
            elif body[0] == frames.DONE:
                frame = frames.parse(body)
                assert not frame["errors"], frame["errors"]
                return

    return work


def batched(values, size=64 << 10):
    batches, batch, count = [], [], 0
    for value in values:
        batch.append(value)
        count += len(value)
        if count >= size:
            batches.append(frames.records(batch))
            batch, count = [], 0
    if batch:
        batches.append(frames.records(batch))
    return batches


def main():
    print("python", sys.version.split()[0], "cores", os.cpu_count())
    start = time.perf_counter()
    for _ in range(5):
        worker().close()
    print(f"start of a worker until Ready: {(time.perf_counter() - start) / 5 * 1e3:.1f} ms")

    one = frames.start(1, 0, [_native.dumps(["t", "a"])])
    echo = Peer([sys.executable, "-c", ECHO])
    echoed = frames.framed(b"\x46" + one[4:])
    show("bare socket round trip", timed(round_trips(echo, echoed, frames.DONE)), 2000)
    show("bare socket, bursts of 50", timed(bursts(echo, echoed * 50, 50, frames.DONE)), 2000)
    echo.close()

    peer = worker()
    number = plan(peer, "GB('CommandReader').map(lambda r: r[1]).register(trigger='t')")
    one = frames.start(1, number, [_native.dumps(["t", "a"])])
    starts = [frames.start(exec_, number, [_native.dumps(["t", "a"])]) for exec_ in range(1, 51)]
    show("trigger round trip", timed(round_trips(peer, one, frames.DONE)), 2000)
    show("triggers in bursts of 50", timed(bursts(peer, b"".join(starts), 50, frames.DONE)), 2000)
    with open(f"/proc/{peer.process.pid}/status") as status:
        print(*(line.strip() for line in status if line.startswith(("VmRSS", "Threads"))))
    peer.close()

    peer = worker()
    number = plan(peer, "GB('CommandReader').map(lambda r: execute('get', r[1])).register(trigger='t')")
    one = frames.start(1, number, [_native.dumps(["t", "a"])])
    value = _native.dumps("value")
    answer = lambda frame: frames.reply(frame["call"], value=value)  # noqa: E731
    show("trigger with one execute", timed(round_trips(peer, one, frames.DONE, answer)), 2000)
    starts = b"".join(frames.start(exec_, number, [_native.dumps(["t", "a"])]) for exec_ in range(1, 51))
    for pause in (0, 50e-6, 150e-6):
        show(
            f"50 triggers with one execute, a turn of {pause * 1e6:.0f} us",
            timed(turns(peer, starts, answer, pause), 21),
            50,
        )
    peer.close()

    peer = worker()
    number = plan(
        peer, "GB('CommandReader').foreach(lambda r: [execute('get', r[1]) for _ in range(2000)]).register(trigger='t')"
    )
    one = frames.start(1, number, [_native.dumps(["t", "a"])])

    def chatty():
        peer.socket.sendall(one)
        while (body := peer.frame())[0] != frames.DONE:
            if body[0] == frames.CALL:
                peer.socket.sendall(answer(frames.parse(body)))

    show("execute, sequential", timed(chatty), 2000)
    peer.close()

    words = [f"word{(i * 7919) % 5000}" for i in range(200_000)]
    text = [" ".join(words[(i * 9 + j) % len(words)] for j in range(9)) for i in range(200_000)]
    values = [frames.key_record(b"user:%d" % i, frames.raw(t.encode())) for i, t in enumerate(text)]
    batches = batched(values)
    sources = {
        "map len + aggregate": "GB().map(lambda r: len(r['value'])).aggregate(0, lambda a, x: a + x, lambda a, x: a + x).run()",
        "word count": "GB().flatmap(lambda r: r['value'].split()).countby().run()",
        "filter + map": "GB().filter(lambda r: r['key'].endswith('00')).map(lambda r: r['value']).run()",
        "count": "GB().count().run()",
        "foreach nothing": "GB().foreach(lambda r: None).filter(lambda r: False).run()",
        "sort of 200,000": "GB().map(lambda r: r['value']).sort().run()",
    }
    for name, source in sources.items():
        peer = worker()
        show(f"{name}: per record of 200,000", timed(bulk(peer, plan(peer, source), batches), 5), 200_000)
        peer.close()
    start = time.perf_counter()
    total = 0
    for t in text:
        total += len(t)
    print(f"the same lens in a plain loop: {(time.perf_counter() - start) / 200_000 * 1e6:.2f} us per record")


if __name__ == "__main__":
    main()
