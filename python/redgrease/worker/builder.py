"""``GearsBuilder``: a reader, the operations after it, and the action that ends it.

Every argument is checked here, with the error texts that clients know. The result is plain data: steps for the native
executor, and for the server a description of the plan (reader, arguments, names of the steps).
"""

import functools
import os
import types

from redgrease import _native
from redgrease.worker import pickling

_READERS = ("KeysReader", "KeysOnlyReader", "StreamReader", "PythonReader", "ShardsIDReader", "CommandReader")
_KEY_TYPES = ("string", "hash", "list", "set", "zset", "stream", "module", "empty")
_POLICIES = ("continue", "abort", "retry")
#: Keywords of `run` and `register`: those of all readers, and those of each.
_OPTIONS = {
    "run": (
        ("mode", "reply"),
        {
            "KeysReader": ("noScan", "readValue"),
            "StreamReader": ("fromId",),
            "KeysOnlyReader": ("count", "noScan", "patternGenerator"),
        },
    ),
    "register": (
        ("mode", "reply", "onRegistered", "regex"),
        {
            "KeysReader": ("eventTypes", "keyTypes", "readValue", "commands", "unknownEvents"),
            "StreamReader": ("batch", "duration", "onFailedPolicy", "onFailedRetryInterval", "trimStream"),
            "CommandReader": ("trigger", "hook", "keyprefix", "inorder"),
        },
    ),
}
#: Flags of code objects: coroutine, iterable coroutine, async generator (``inspect`` costs too much to import).
_ASYNC_FLAGS = 0x80 | 0x100 | 0x200

#: Numbers of plans are unique over all workers: a session may move from one to another.
_base = int.from_bytes(os.urandom(6), "little") >> 6 << 20
_made = 0


def current_session():
    """Return the session that the calling thread belongs to, or None; replaced by ``sessions``."""
    return None


def _next_number():
    global _made
    _made += 1
    return _base + _made


def _error(text):
    return _native.GearsError(text)


def _name(callback):
    name = getattr(callback, "__name__", None)
    return name if isinstance(name, str) and name else type(callback).__name__


class GearsBuilder:
    """Builds a plan.

    ``reader`` is the name of the reader, ``defaultArg`` its argument when ``run`` gets none, and ``desc`` a text shown
    with registrations. Operations change the builder and return it.
    """

    def __init__(self, reader="KeysReader", defaultArg="*", desc=None):
        if not isinstance(reader, str):
            raise _error("reader argument must be a string")
        if desc is not None and not isinstance(desc, str):
            raise _error("desc argument must be a string")
        if reader not in _READERS:
            raise _error("The given reader does not exists")
        self.reader = reader
        self.defaultArg = defaultArg
        self.desc = desc
        #: Steps: tuples of a kind and its arguments.
        self._steps = []

    def __repr__(self):
        steps = "".join(f".{step[0]}()" for step in self._steps)
        return f"GearsBuilder({self.reader!r}){steps}"

    # ---- primitive operations: positional arguments only ----------------------------------------------------------

    def map(self, *args):
        """Replace each record by ``f(record)``."""
        return self._add("map", args, 1)

    def filter(self, *args):
        """Keep the records for which ``f(record)`` is true."""
        return self._add("filter", args, 1)

    def foreach(self, *args):
        """Call ``f(record)`` and pass the record on."""
        return self._add("foreach", args, 1)

    def flatmap(self, *args, inOrder=False):
        """Replace each record by the items of the list ``f(record)``: last one first, as in RedisGears.

        ``inOrder=True`` emits them in the order of the list.
        """
        if not isinstance(inOrder, bool):
            raise _error("inOrder argument must be a boolean")
        self._add("flatmap", args, 1)
        if inOrder:
            self._steps[-1] += (True,)
        return self

    def accumulate(self, *args):
        """Reduce the records of a shard with ``f(accumulator, record)``, beginning with None."""
        return self._add("accumulate", args, 1)

    def localgroupby(self, *args):
        """Reduce the records of a shard by key: ``extractor(record)``, ``f(key, accumulator, record)``."""
        return self._add("localgroupby", args, 2)

    def groupby(self, *args):
        """Reduce the records of all shards by key: ``extractor(record)``, ``f(key, accumulator, record)``."""
        return self._add("groupby", args, 2)

    def batchgroupby(self, *args):
        """Reduce all records of a key at once: ``extractor(record)``, ``f(key, records)``."""
        return self._add("batchgroupby", args, 2)

    def repartition(self, *args):
        """Move each record to the shard of the key ``extractor(record)``."""
        return self._add("repartition", args, 1)

    def collect(self, *args):
        """Move all records to the shard where the execution began."""
        if args:
            raise _error("wrong number of args to collect function")
        self._steps.append(("collect",))
        return self

    def limit(self, *args):
        """Let ``length`` records of each shard pass, after the first ``offset``."""
        if not 1 <= len(args) <= 2:
            raise _error("wrong number of args to limit function")
        if not all(isinstance(arg, int) and not isinstance(arg, bool) for arg in args):
            raise _error("limit argument must be a number")
        length, offset = (_in_range("limit argument", arg) for arg in (args if len(args) == 2 else (args[0], 0)))
        self._steps.append(("limit", length, offset))
        return self

    # ---- derived operations ---------------------------------------------------------------------------------------

    def aggregate(self, zero, seqOp, combOp):
        """Reduce all records: ``seqOp(acc, record)`` on each shard, then ``combOp(acc, partial)``, from ``zero``."""
        _check("aggregate", seqOp, combOp)
        self._steps.append(("aggregate", zero, seqOp, combOp))
        return self

    def aggregateby(self, extractor, zero, seqOp, combOp):
        """Reduce by key: ``seqOp(key, acc, record)`` on each shard, then ``combOp(key, acc, partial)``."""
        _check("aggregateby", extractor, seqOp, combOp)
        self._steps.append(("aggregateby", extractor, zero, seqOp, combOp))
        return self

    def __localAggregateby__(self, extractor, zero, aggregator):
        _check("localaggregateby", extractor, aggregator)
        self._steps.append(("localaggregateby", extractor, zero, aggregator))
        return self

    def count(self):
        """Count the records."""
        self._steps.append(("count",))
        return self

    def countby(self, extractor=None):
        """Count the records of each key: ``extractor(record)``, by default the record itself."""
        if extractor is not None:
            _check("countby", extractor)
        self._steps.append(("countby", extractor))
        return self

    def avg(self, extractor=None):
        """Average of ``extractor(record)``, by default of ``float(record)``."""
        if extractor is not None:
            _check("avg", extractor)
        self._steps.append(("avg", extractor))
        return self

    def sort(self, reverse=True):
        """Sort all records, ascending by default: ``reverse`` is the order of sorting, and it is emitted backwards."""
        self._steps.append(("sort", bool(reverse)))
        return self

    def distinct(self):
        """Keep each distinct record once."""
        self._steps.append(("distinct",))
        return self

    # ---- actions --------------------------------------------------------------------------------------------------

    def run(self, arg=None, convertToStr=True, collect=True, **options):
        """Start an execution; return its id.

        ``arg`` is the reader's argument (a falsy one: the builder's ``defaultArg``), ``convertToStr`` makes each result
        a text, ``collect`` brings them to this shard. Further options depend on the reader.
        """
        _check_options("run", self.reader, options)
        reply = _reply(options)
        mode = _mode(options, ("async", "async_local"))
        source, args = self._run_arguments(arg or self.defaultArg, options)
        self._finish(convertToStr, collect)
        number = _next_number()
        spec = self._spec(mode, reply, collect, False, args)
        return self._act(number, source, lambda: _native.run_plan(number, spec))

    def register(self, prefix="*", convertToStr=True, collect=True, **options):
        """Register the function for events; return the registration's id.

        ``prefix`` selects the keys: a pattern of the server (``person:*``, ``*:[ab]``), or a name. Further options
        depend on the reader.
        """
        _check_options("register", self.reader, options)
        if "regex" in options:
            _native.log("regex is deprecated, use prefix instead", "warning")
            prefix = options.pop("regex")
        reply = _reply(options)
        mode = _mode(options, ("async", "async_local", "sync"))
        on_registered = options.pop("onRegistered", None)
        if on_registered is not None and not callable(on_registered):
            raise _error("OnRegistered argument must be a function")
        if on_registered is not None and _is_async(on_registered):
            raise _error("onRegistered got an async function, and async functions are not supported yet")
        args = self._register_arguments(prefix, mode, options)
        session = current_session()
        if session is None:
            raise _error("this thread belongs to no session: bind it with setGearsSession")
        number = _next_number()
        self._finish(convertToStr, collect)
        recipe = (number, list(self._steps), on_registered)
        blob = pickling.dumps([recipe], session.namespace)
        in_script = session.runs_script_here()
        spec = self._spec(mode, reply, collect, on_registered is not None, args)
        # Stored before the server knows it: an event may start it, and `onRegistered` run, before the reply arrives.
        session.registered[number] = on_registered
        try:
            made = self._act(number, None, lambda: _native.register_plan(number, spec, b"" if in_script else blob))
        except BaseException:
            del session.registered[number]
            raise
        if in_script:
            session.script_plans.append(recipe)
        return made

    # ---- internal -------------------------------------------------------------------------------------------------

    def _add(self, kind, args, count):
        if len(args) != count:
            raise _error(f"wrong number of args to {kind} function")
        _check(kind, *args)
        self._steps.append((kind, *args))
        return self

    def _finish(self, convert_to_str, collect):
        if convert_to_str:
            self._steps.append(("tostr",))
        if collect:
            self._steps.append(("collect",))

    def _spec(self, mode, reply, collect, on_registered, args):
        return _native.dumps(
            {
                "reader": self.reader,
                "desc": self.desc,
                "mode": mode,
                "reply": reply,
                "collect": bool(collect),
                "onRegistered": on_registered,
                "args": args,
                "steps": [_step(step) for step in self._steps],
            },
            pickle=False,
        )

    def _act(self, number, source, action):
        _native.add_plan(number, _native.current_session(), source, self._steps)
        try:
            return action()
        except BaseException:
            _native.remove_plans([number])
            raise

    def _run_arguments(self, arg, options):
        """Return the function that makes the records in the worker (None: the server reads them), and the arguments."""
        if self.reader == "KeysReader":
            return None, {
                "pattern": _text(arg),
                "noScan": _bool(options, "noScan", False, "exactMatch value is not boolean"),
                "readValue": _bool(options, "readValue", True, "readValue value is not boolean"),
            }
        if self.reader == "StreamReader":
            from_id = options.get("fromId", "0-0")
            if not isinstance(from_id, str):
                raise _error("fromId argument must be a string")
            return None, {"key": _text(arg), "fromId": from_id}
        if self.reader == "PythonReader":
            if not callable(arg):
                raise _error("pyreader argument must be a function")
            if _is_async(arg):
                raise _error("pyreader got an async function, and async functions are not supported yet")
            return arg, {}
        if self.reader == "KeysOnlyReader":
            return _keys_only(arg, **options), {}
        if self.reader == "ShardsIDReader":
            return _shard_id, {}
        raise _error("Given reader do not support run or not exists")

    def _register_arguments(self, prefix, mode, options):
        if self.reader == "KeysReader":
            key_types = _texts(options, "keyTypes", "given keyTypes is not iterable", "given key type is not string")
            key_types = key_types and [name.lower() for name in key_types]
            if key_types and not all(name in _KEY_TYPES for name in key_types):
                raise _error("unknown key type")
            return {
                "prefix": _text(prefix),
                "eventTypes": _texts(
                    options, "eventTypes", "given eventTypes is not iterable", "given event type is not string"
                ),
                "unknownEvents": _bool(options, "unknownEvents", False, "unknownEvents value is not boolean"),
                "keyTypes": key_types,
                "readValue": _bool(options, "readValue", True, "readValue is not boolean"),
                "commands": _texts(
                    options, "commands", "given commands is not iterable", "given command type is not string"
                )
                or None,
            }
        if self.reader == "StreamReader":
            return _stream_arguments(prefix, mode, options)
        if self.reader == "CommandReader":
            return _command_arguments(options)
        raise _error("given reader does not exists or does not support register")


def _check(kind, *callbacks):
    for callback in callbacks:
        if not callable(callback):
            raise _error(f"{kind} argument must be a function")
        if _is_async(callback):
            raise _error(f"{kind} got an async function, and async functions are not supported yet: use a plain one")


def _is_async(callback):
    """Whether a call returns a coroutine or an async generator, as far as its code shows."""
    # Only known types are inspected: any other object may have an attribute of any name.
    while "_is_coroutine_marker" not in (getattr(callback, "__dict__", None) or ()):
        if isinstance(callback, types.FunctionType):
            return bool(callback.__code__.co_flags & _ASYNC_FLAGS)
        if isinstance(callback, types.MethodType):
            callback = callback.__func__
        elif isinstance(callback, functools.partial):
            callback = callback.func
        elif isinstance(callback, type) or not isinstance(type(callback).__call__, types.FunctionType):
            return False
        else:
            callback = type(callback).__call__
    return True


def _check_options(action, reader, options):
    """Raise an error that names an unknown keyword of the reader's action, and the nearest known one."""
    common, of_readers = _OPTIONS[action]
    known = (*common, *of_readers.get(reader, ()))
    for name in options:
        if name in known:
            continue
        import difflib

        arguments = (("arg",) if action == "run" else ("prefix",)) + ("convertToStr", "collect")
        folded = {each.lower(): each for each in (*known, *arguments)}
        near = difflib.get_close_matches(name.lower().replace("_", ""), folded, 1, 0.5)
        owners = [other for other, names in of_readers.items() if name in names]
        if owners:
            hint = f": it belongs to {' and '.join(owners)}"
        else:
            hint = f": did you mean '{folded[near[0]]}'?" if near else f": it has {', '.join(known)}"
        raise _error(f"{action} of the {reader} has no keyword '{name}'{hint}")


def _step(step):
    kind = step[0]
    if kind == "limit":
        return [kind, "", [step[1], step[2]]]
    callback = next((arg for arg in step[1:] if callable(arg)), None)
    return [kind, _name(callback), _str(callback)] if callback is not None else [kind, "", ""]


def _str(callback):
    try:
        return str(callback)
    except Exception:
        return _name(callback)


def _text(value):
    if not isinstance(value, (str, bytes)):
        raise _error("regex argument must be a string")
    return value if type(value) in (str, bytes) else str(value)


def _bool(options, name, default, text):
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise _error(text)
    return value


def _number(options, name, default, text):
    value = options.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _error(f"{text}, got {_shown(value)}")
    return _in_range(name, value)


def _in_range(name, value):
    """Return a number of the user as an int, or raise an error with its name, its value and its range."""
    least, most, unit = _native.NUMBER_RANGES[name]
    if not least <= value <= most or value != int(value):
        raise _error(f"{name} must be a whole number from {least} to {most}{unit}, got {_shown(value)}")
    return int(value)


def _shown(value):
    """Return a value for an error, shortened."""
    try:
        text = repr(value)
    except Exception:
        # Python refuses to print integers of thousands of digits; the repr of an object may fail.
        return f"an integer of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"


def _texts(options, name, not_iterable, not_string):
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, (str, bytes)):
        raise _error(f"{name} must be a list of names, got {_shown(value)}: write {name}=[{_shown(value)}]")
    try:
        items = list(value)
    except TypeError:
        raise _error(not_iterable) from None
    if not all(isinstance(item, str) for item in items):
        raise _error(not_string)
    if not items and name != "commands":
        raise _error(
            f"{name} is an empty list, with which the function never runs: leave it out to have it run for all"
        )
    return [str(item) for item in items]


def _mode(options, known):
    mode = options.pop("mode", "async")
    if not isinstance(mode, str):
        raise _error("execution mode must be a string")
    if mode not in known:
        raise _error("unknown execution mode")
    return mode


def _reply(options):
    reply = options.pop("reply", "compat")
    if reply not in ("compat", "plain"):
        raise _error("reply must be 'compat' or 'plain'")
    return reply


def _stream_arguments(prefix, mode, options):
    args = {
        "prefix": _text(prefix),
        "batch": _number(options, "batch", 1, "batch argument must be a number"),
        "duration": _number(options, "duration", 0, "duration argument must be a number"),
    }
    policy = options.get("onFailedPolicy", "continue")
    if not isinstance(policy, str):
        raise _error("onFailedPolicy must be a string (Continue/Abort/Retry)")
    policy = policy.lower()
    if policy not in _POLICIES:
        raise _error("onFailedPolicy must be Continue/Abort/Retry")
    if mode == "sync" and policy != "continue":
        raise _error("ExecutionMode sync can only be combined with OnFailedPolicy Continue")
    args["onFailedPolicy"] = policy
    args["onFailedRetryInterval"] = _number(
        options, "onFailedRetryInterval", 1, "retryInterval argument must be a number"
    )
    args["trimStream"] = _bool(options, "trimStream", True, "trimStream argument must be a boolean")
    return args


def _command_arguments(options):
    trigger, hook, key_prefix = (options.get(name) for name in ("trigger", "hook", "keyprefix"))
    if trigger is None and hook is None:
        raise _error("no trigger or hook argument was given")
    if trigger is not None and (hook is not None or key_prefix is not None):
        raise _error("trigger argument can not be given with keyprefix or hook")
    for name, value in (("trigger", trigger), ("hook", hook), ("keyprefix", key_prefix)):
        if value is not None and not isinstance(value, str):
            raise _error(f"{name} argument is not string")
    in_order = options.get("inorder", False)
    if not isinstance(in_order, bool):
        raise _error("inorder argument is be boolean")
    return {"trigger": trigger, "hook": hook, "keyprefix": key_prefix, "inorder": in_order}


def _keys_only(pattern, count=1000, noScan=False, patternGenerator=None):
    """Make the reader of key names: ``count`` is a hint for each SCAN."""
    count = _number({"count": count}, "count", None, "count argument must be a number")
    if patternGenerator is not None:
        _check("patternGenerator", patternGenerator)
    if not isinstance(noScan, bool):
        raise _error("noScan value is not boolean")

    def keys():
        chosen, exact = (pattern, noScan) if patternGenerator is None else patternGenerator()
        if exact:
            try:
                if _native.execute("exists", chosen) == 1:
                    yield chosen
            except _native.GearsError:
                # The key belongs to another shard.
                return
            return
        cursor = "0"
        while True:
            cursor, names = _native.execute("scan", cursor, "match", chosen, "count", str(count))
            yield from names
            if cursor in ("0", 0):
                return

    return keys


def _shard_id():
    """Make the one record of the reader of shard ids."""
    try:
        yield _native.execute("cluster", "myid")
    except _native.GearsError:
        yield "1"
