"""The frames between server and worker, implemented a second time for tests.

A second implementation on purpose: the Rust one would otherwise be tested against itself. Values are encoded by the
extension. Kinds are numbered in the order of the variants of ``ToWorker`` and ``FromWorker``.
"""

import struct

LAST, SYNC, PROFILE, TRACEBACK, TAGGED = 1, 2, 4, 8, 16
PICKLED = 64
READY, SCRIPT_DONE, CALL, PROGRESS, OUTPUT, DONE, CONSUMED, STOP, LOG, PARKED, ANSWERED = range(11)
MOVED, STAGE_ENDED, TAKEN, STAGE_CLOSED = range(11, 15)
OPERATIONS = (
    "execute", "run", "register", "enter", "exit", "config", "hashtag", "call_next", "time_event", "get_command",
    "override_reply", "results",
)  # fmt: skip


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def blob(data):
    data = data.encode() if isinstance(data, str) else bytes(data)
    return varint(len(data)) + data


def listed(items, write):
    return varint(len(items)) + b"".join(map(write, items))


def framed(body):
    return struct.pack("<I", len(body)) + body


def records(values):
    """Records of one frame: (number, bytes)."""
    return varint(len(values)) + blob(b"".join(values))


def hello(protocol=7, threads=1, record_bytes_max=64 << 20, spin_micros=0):
    numbers = varint(threads) + varint(record_bytes_max) + varint(spin_micros)
    return framed(b"\x01" + varint(protocol) + blob("test") + varint(1) + numbers)


def script(request, session, source, name="s", paths=(), traceback=True, tagged=False):
    body = b"\x02" + varint(request) + varint(session) + blob(name) + blob(source) + listed(paths, blob)
    return framed(body + bytes([traceback, tagged]))


def restore(request, session, blobs=(), function=None, name="s", paths=()):
    body = b"\x03" + varint(request) + varint(session) + blob(name)
    body += b"\x00" if function is None else b"\x01" + _function(*function)
    return framed(body + listed(blobs, blob) + listed(paths, blob))


def load(request, session, function, name="s", paths=(), traceback=True):
    """``function``: number of the plan, encoded plan, pickle."""
    body = b"\x0c" + varint(request) + varint(session) + blob(name) + _function(*function) + listed(paths, blob)
    return framed(body + bytes([traceback]))


def _function(plan, spec, callbacks):
    return varint(plan) + blob(spec) + blob(callbacks)


def plan_in_data(plan, session):
    """The number of a plan in the data of its session, or back from there."""
    return plan ^ session * 0x9E3779B97F4A7C15 % (1 << 64)


def registered(plan):
    return framed(b"\x04" + varint(plan))


def start(exec_, plan, values=(), flags=LAST | TRACEBACK, lane=0, first_step=0):
    return framed(
        b"\x05" + varint(exec_) + varint(plan) + varint(lane) + bytes([flags]) + varint(first_step) + records(values)
    )


def feed(exec_, values, last):
    return encoded_feed(exec_, records(values), last)


def encoded_feed(exec_, encoded, last):
    return framed(b"\x06" + varint(exec_) + bytes([last]) + encoded)


def abort(exec_, begun=True):
    return framed(b"\x07" + varint(exec_) + bytes([begun]))


def reply(call, value=None, error=None):
    return framed(b"\x08" + varint(call) + (b"\x00" + blob(value) if error is None else b"\x01" + blob(error)))


def forget_plans(plans):
    return framed(b"\x09" + listed(plans, varint))


def forget_session(session):
    return framed(b"\x0a" + varint(session))


def threads(count):
    return framed(b"\x0b" + varint(count))


def route(exec_, here, shards, slots, window):
    """``slots``: for each range its first and last slot and the position of its shard."""

    def one(row):
        return b"".join(map(varint, row))

    return framed(b"\x0e" + varint(exec_) + varint(here) + varint(shards) + listed(slots, one) + varint(window))


def arrived(exec_, stage, encoded, last):
    """``encoded``: number of records and their bytes, as ``records`` returns them."""
    return framed(b"\x0f" + varint(exec_) + varint(stage) + bytes([last]) + encoded)


def room(exec_, stage, size):
    return framed(b"\x10" + varint(exec_) + varint(stage) + varint(size))


def close_stage(exec_, stage):
    return framed(b"\x11" + varint(exec_) + varint(stage))


def cluster(several):
    return framed(b"\x12" + bytes([several]))


def shutdown():
    return framed(b"\x00")


def key_record(key, value, event=None, kind=1):
    """A record of the KeysReader: ``value`` is encoded."""
    optional = varint(0) if event is None else varint(len(event) + 1) + event
    return b"\x10" + blob(key) + optional + bytes([kind]) + value


def raw(data):
    """A string of the database, encoded."""
    return b"\x0f" + blob(data)


class Body:
    """Reads the fields of a frame."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def byte(self):
        self.at += 1
        return self.data[self.at - 1]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def blob(self):
        length = self.varint()
        self.at += length
        return self.data[self.at - length : self.at]

    def optional(self, read):
        return read() if self.byte() else None

    def list(self, read):
        return [read() for _ in range(self.varint())]

    def records(self):
        return self.varint(), self.blob()


def parse(data):
    """A worker's frame as a dictionary."""
    body = Body(data)
    kind = body.byte()
    if kind == READY:
        frame = {
            "kind": "ready", "protocol": body.varint(), "codec": body.varint(), "pid": body.varint(),
            "python": body.blob().decode(), "package": body.blob().decode(), "isolation": body.blob().decode(),
        }  # fmt: skip
    elif kind == SCRIPT_DONE:
        request, error = body.varint(), body.optional(body.blob)
        frame = {"kind": "script_done", "request": request, "error": error and error.decode(), "blob": body.blob()}
    elif kind == CALL:
        frame = {"kind": "call", "exec": body.optional(body.varint), "session": body.varint(), "call": body.varint()}
        frame["op"] = OPERATIONS[body.varint()]
        if frame["op"] == "execute":
            frame["argv"] = body.list(body.blob)
        elif frame["op"] == "run" or frame["op"] == "register":
            frame.update(plan=body.varint(), spec=body.blob(), blob=body.blob())
        elif frame["op"] == "config":
            frame["key"] = body.blob()
        elif frame["op"] == "call_next":
            frame["argv"] = body.list(body.blob)
        elif frame["op"] == "time_event":
            frame.update(plan=body.varint(), spec=body.blob(), blob=body.blob(), period_s=body.varint())
            frame["key"] = body.optional(body.blob)
        elif frame["op"] == "override_reply":
            frame["value"] = body.blob()
        elif frame["op"] == "results":
            frame["execution"] = body.blob().decode()
    elif kind == PROGRESS:
        frame = {"kind": "progress", "exec": body.varint(), "step": body.varint()}
    elif kind == OUTPUT:
        frame = {"kind": "output", "exec": body.varint(), "records": body.records()}
    elif kind == DONE:
        frame = {
            "kind": "done", "exec": body.varint(), "aborted": bool(body.byte()), "records": body.records(),
            "errors": body.list(body.blob), "micros": body.list(body.varint),
        }  # fmt: skip
    elif kind == CONSUMED:
        frame = {"kind": "consumed", "exec": body.varint(), "bytes": body.varint()}
    elif kind == STOP:
        frame = {"kind": "stop", "exec": body.varint()}
    elif kind == LOG:
        session, level = body.optional(body.varint), body.varint()
        frame = {"kind": "log", "session": session, "level": level, "message": body.blob()}
    elif kind == PARKED:
        frame = {"kind": "parked", "exec": body.varint()}
    elif kind == ANSWERED:
        frame = {"kind": "answered", "request": body.varint(), "failed": bool(body.byte()), "text": body.blob()}
    elif kind == MOVED:
        frame = {"kind": "moved", "exec": body.varint(), "stage": body.varint(), "shard": body.varint()}
        frame["records"] = body.records()
    elif kind == STAGE_ENDED:
        frame = {"kind": "stage_ended", "exec": body.varint(), "stage": body.varint()}
    elif kind == TAKEN:
        frame = {"kind": "taken", "exec": body.varint(), "stage": body.varint(), "bytes": body.varint()}
    elif kind == STAGE_CLOSED:
        frame = {"kind": "stage_closed", "exec": body.varint(), "stage": body.varint()}
    else:
        raise AssertionError(f"unknown frame {kind}")
    assert body.at == len(data), f"trailing bytes in {frame}"
    return frame
