"""The operations of a plan, and the plan that comes out."""

from redgrease import _native
from redgrease.plan.arguments import (
    check,
    check_options,
    error,
    in_range,
    is_async,
    mode_of,
    register_arguments,
    reply_of,
    run_arguments,
)


class Plan:
    """A plan as the server reads it, and what belongs to it where it runs."""

    __slots__ = ("callbacks", "on_registered", "source", "spec")

    def __init__(self, spec, callbacks, source=None, on_registered=None):
        #: The encoded plan.
        self.spec = spec
        #: For each step the tuple of its callbacks.
        self.callbacks = callbacks
        #: The function that makes the records in the worker (None: the server reads them).
        self.source = source
        #: Called when the plan has become a registration (or None).
        self.on_registered = on_registered


class PlanBuilder:
    """A reader and the operations after it.

    ``reader`` is the name of the reader, ``defaultArg`` its argument when ``run`` gets none, and ``desc`` a text shown
    with registrations. Operations change the builder and return it.
    """

    def __init__(self, reader="KeysReader", defaultArg="*", desc=None):
        if not isinstance(reader, str):
            raise error("reader argument must be a string")
        if desc is not None and not isinstance(desc, str):
            raise error("desc argument must be a string")
        if reader not in _native.READERS:
            raise error("The given reader does not exists")
        self.reader = reader
        self.defaultArg = defaultArg
        self.desc = desc
        #: Steps: tuples of a kind, its callbacks, and its settings.
        self._steps = []

    def __repr__(self):
        steps = "".join(f".{kind}()" for kind, _, _ in self._steps)
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
            raise error("inOrder argument must be a boolean")
        return self._add("flatmap", args, 1, inOrder=inOrder)

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
            raise error("wrong number of args to collect function")
        return self._append("collect")

    def limit(self, *args):
        """Let ``length`` records of each shard pass, after the first ``offset``."""
        if not 1 <= len(args) <= 2:
            raise error("wrong number of args to limit function")
        if not all(isinstance(arg, int) and not isinstance(arg, bool) for arg in args):
            raise error("limit argument must be a number")
        length, offset = (in_range("limit argument", arg) for arg in (args if len(args) == 2 else (args[0], 0)))
        return self._append("limit", length=length, offset=offset)

    # ---- derived operations ---------------------------------------------------------------------------------------

    def aggregate(self, zero, seqOp, combOp):
        """Reduce all records: ``seqOp(acc, record)`` on each shard, then ``combOp(acc, partial)``, from ``zero``."""
        check("aggregate", seqOp, combOp)
        return self._append("aggregate", zero, seqOp, combOp)

    def aggregateby(self, extractor, zero, seqOp, combOp):
        """Reduce by key: ``seqOp(key, acc, record)`` on each shard, then ``combOp(key, acc, partial)``."""
        check("aggregateby", extractor, seqOp, combOp)
        return self._append("aggregateby", extractor, zero, seqOp, combOp)

    def __localAggregateby__(self, extractor, zero, aggregator):
        check("localaggregateby", extractor, aggregator)
        return self._append("localaggregateby", extractor, zero, aggregator)

    def count(self):
        """Count the records."""
        return self._append("count")

    def countby(self, extractor=None):
        """Count the records of each key: ``extractor(record)``, by default the record itself."""
        return self._keyed("countby", extractor)

    def avg(self, extractor=None):
        """Average of ``extractor(record)``, by default of ``float(record)``."""
        return self._keyed("avg", extractor)

    def sort(self, reverse=True):
        """Sort all records, ascending by default: ``reverse`` is the order of sorting, and it is emitted backwards."""
        return self._append("sort", reverse=bool(reverse))

    def distinct(self):
        """Keep each distinct record once."""
        return self._append("distinct")

    # ---- plans ----------------------------------------------------------------------------------------------------

    def run(self, arg=None, convertToStr=True, collect=True, **options):
        """Return the plan of a run.

        ``arg`` is the reader's argument (a falsy one: the builder's ``defaultArg``), ``convertToStr`` makes each result
        a text, ``collect`` brings them to this shard. Further options depend on the reader.
        """
        check_options("run", self.reader, options)
        reply = reply_of(options)
        mode = mode_of(options, _native.RUN_MODES)
        source, args = run_arguments(self.reader, arg or self.defaultArg, options)
        self._finish(convertToStr, collect)
        return self._plan(mode, reply, args, source=source)

    def register(self, prefix="*", convertToStr=True, collect=True, **options):
        """Return the plan of a registration.

        ``prefix`` selects the keys: a pattern of the server (``person:*``, ``*:[ab]``), or a name. Further options
        depend on the reader.
        """
        check_options("register", self.reader, options)
        if "regex" in options:
            _native.log("regex is deprecated, use prefix instead", "warning")
            prefix = options.pop("regex")
        reply = reply_of(options)
        mode = mode_of(options, _native.MODES)
        on_registered = options.pop("onRegistered", None)
        if on_registered is not None and not callable(on_registered):
            raise error("OnRegistered argument must be a function")
        if on_registered is not None and is_async(on_registered):
            raise error("onRegistered got an async function: use a plain one, and runCoroutine in it")
        args = register_arguments(self.reader, prefix, mode, options)
        self._finish(convertToStr, collect)
        return self._plan(mode, reply, args, on_registered=on_registered)

    # ---- internal -------------------------------------------------------------------------------------------------

    def _add(self, kind, args, count, **settings):
        if len(args) != count:
            raise error(f"wrong number of args to {kind} function")
        check(kind, *args)
        return self._append(kind, *args, **settings)

    def _keyed(self, kind, extractor):
        if extractor is None:
            return self._append(kind, extractor=False)
        check(kind, extractor)
        self._steps.append((kind, (extractor,), {"extractor": True}))
        return self

    def _append(self, kind, *callbacks, **settings):
        self._steps.append((kind, callbacks, settings))
        return self

    def _finish(self, convert_to_str, collect):
        if convert_to_str:
            self._append("tostr")
        if collect:
            self._append("collect")

    def _plan(self, mode, reply, args, **rest):
        spec = {
            "reader": self.reader,
            "desc": self.desc,
            "mode": mode,
            "reply": reply,
            "args": args,
            "steps": [[kind, settings] if settings else [kind] for kind, _, settings in self._steps],
        }
        callbacks = [callbacks for _, callbacks, _ in self._steps]
        return Plan(_native.dumps(_plain(spec), pickle=False), callbacks, **rest)


def _plain(value):
    """Return a value with exact texts: constants such as ``TriggerMode.Sync`` are of a subclass of `str`."""
    if isinstance(value, str):
        return str.__str__(value)
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, dict):
        return {_plain(name): _plain(item) for name, item in value.items()}
    return value
