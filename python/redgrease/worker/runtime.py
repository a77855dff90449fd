"""The names that scripts can use without an import, and the module ``redisgears``.

``install`` puts them into ``sys.modules`` and ``__main__``; ``namespace`` makes the globals of a script.
"""

import builtins
import copy
import io
import sys

from redgrease import _native
from redgrease.worker import builder
from redgrease.worker.builder import GearsBuilder

execute = _native.execute
atomic = _native.PyAtomic
hashtag = _native.hashtag
log = _native.log
flat_error = _native.flat_error
configGet = _native.config_get
isInAtomicBlock = _native.is_in_atomic_block
isAsyncAllow = _native.is_async_allowed
gearsFuture = _native.gears_future
call_next = _native.call_next
get_command = _native.get_command
override_reply = _native.override_reply
gearsCtx = GearsBuilder
registerTE = builder.registerTE

#: Names that need an import: a script gets those that its source mentions.
_COSTLY = {
    "asyncio": ("asyncio", None),
    "cProfile": ("cProfile", None),
    "pstats": ("pstats", None),
    "Future": ("asyncio", "Future"),
    "Thread": ("threading", "Thread"),
    "dumps": ("cloudpickle", "dumps"),
    "loads": ("cloudpickle", "loads"),
}

#: The same for names of ``coroutines``, which imports ``asyncio``.
_OF_COROUTINES = ("createFuture", "setFutureResults", "setFutureException", "runCoroutine", "GearsFuture")


def gearsConfigGet(key, default=None):
    """Return the value of a configuration key, or ``default`` if it is not set."""
    value = configGet(key)
    return value if value is not None else default


def getGearsSession():
    """Return the session that this thread belongs to, for ``setGearsSession`` in another thread, or None."""
    from redgrease.worker import sessions

    return sessions.current()


def setGearsSession(*args):
    """Bind this thread to a session of ``getGearsSession()``; None unbinds it."""
    from redgrease.worker import sessions

    if len(args) != 1:
        raise _native.GearsError("Wrong number of args given to setGearsSession")
    if args[0] is not None and not isinstance(args[0], sessions.Session):
        raise _native.GearsError("Given object is not of type GearsSession")
    _native.set_session(args[0].number if args[0] is not None else 0)


def registerGearsThread():
    """Let a thread run gears functions; does nothing, since no preparation is needed."""


class GearsSession:
    """Context manager: inside, this thread belongs to the session that was given."""

    def __init__(self, session):
        self._session = session
        self._before = None

    def __enter__(self):
        self._before = getGearsSession()
        setGearsSession(self._session)
        return self

    def __exit__(self, *_exception):
        setGearsSession(self._before)


def profilerCreate():
    """Return a new profiler: a ``cProfile.Profile``."""
    import cProfile

    return cProfile.Profile()


def profileStart(profiler):
    """Begin to profile the calling thread."""
    profiler.enable()


def profileStop(profiler):
    """End what ``profileStart`` began."""
    profiler.disable()


def profileGetInfo(profiler, order="tottime"):
    """Return the statistics of a profiler as text: functions, their callers and their callees.

    Args:
        profiler: A profiler that has run.
        order: A sort key of ``pstats``, such as ``"tottime"`` or ``"cumulative"``.

    Raises:
        GearsError: the order is unknown.
        TypeError: the profiler has not run.
    """
    import pstats

    text = io.StringIO()
    statistics = pstats.Stats(profiler, stream=text)
    try:
        statistics.sort_stats(order)
    except KeyError:
        raise _native.GearsError(f"unknown order of statistics: {order!r}, for example 'tottime'") from None
    statistics.print_stats()
    statistics.print_callers()
    statistics.print_callees()
    return text.getvalue()


def __getattr__(name):
    if name not in _OF_COROUTINES:
        raise AttributeError(name)
    from redgrease.worker import coroutines

    return getattr(coroutines, name)


def _deprecated(name, function, instead):
    def deprecated(*args, **kwargs):
        log(f"{name} is deprecated, use {instead} instead", level="warning")
        return function(*args, **kwargs)

    deprecated.__name__ = deprecated.__qualname__ = name
    deprecated.__doc__ = f"Deprecated name of ``{instead}``."
    return deprecated


Log = _deprecated("Log", log, "log")
ConfigGet = _deprecated("ConfigGet", configGet, "configGet")
GearsConfigGet = _deprecated("GearsConfigGet", gearsConfigGet, "gearsConfigGet")
GB = GearsBuilder

_SCRIPT_NAMES = (
    "GearsBuilder", "GB", "execute", "atomic", "call_next", "get_command", "override_reply", "hashtag", "log",
    "configGet", "gearsConfigGet", "registerTE", "flat_error", "isAsyncAllow", "isInAtomicBlock",
    "gearsFuture", "gearsCtx", "setGearsSession", "getGearsSession", "registerGearsThread", "GearsSession",
    "profilerCreate", "profileStart", "profileStop", "profileGetInfo", "Log", "ConfigGet", "GearsConfigGet",
)  # fmt: skip

#: Names in the module ``redisgears`` and their objects.
_MODULE_NAMES = {
    "executeCommand": "execute",
    "atomicCtx": "atomic",
    "PyAtomic": "atomic",
    "callNext": "call_next",
    "getCommand": "get_command",
    "overrideReply": "override_reply",
    "getMyHashTag": "hashtag",
    "log": "log",
    "config_get": "configGet",
    "registerTimeEvent": "registerTE",
    "flatError": "flat_error",
    "isAsyncAllow": "isAsyncAllow",
    "isInAtomicBlock": "isInAtomicBlock",
    "gearsCtx": "gearsCtx",
    "gearsFutureCtx": "gearsFuture",
    "setGearsSession": "setGearsSession",
    "getGearsSession": "getGearsSession",
    "registerGearsThread": "registerGearsThread",
    "PyFlatExecution": "GearsBuilder",
    "_saveGlobals": "registerGearsThread",
}

#: The text of every function of the module ``redisAI``.
_NO_AI = "RedisAI is not loaded, it is not possible to use AI interface."


def _ai_function(name):
    """Return a function of the module ``redisAI``; there is no such module for today's servers."""
    if name.startswith("__"):
        raise AttributeError(name)

    def refused(*_args, **_options):
        raise _native.GearsError(_NO_AI)

    refused.__name__ = refused.__qualname__ = name
    return refused


def _module(name, doc, names):
    module = type(sys)(name, doc)
    module.__dict__.update(names)
    sys.modules[name] = module
    return module


class _ClientFinder:
    """Finds the modules of the client ``gearsclient`` where that package is not installed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Return how to import `name`, or None."""
        if name not in ("gearsclient", "gearsclient.redisgears_builder"):
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, _ClientFinder, is_package=name == "gearsclient")  # type: ignore[arg-type]

    @staticmethod
    def create_module(_spec):
        """Return None: an ordinary module."""

    @staticmethod
    def exec_module(module):
        """Fill the module."""
        from redgrease.worker import gearsclient

        vars(module).update(gearsclient.NAMES)


def install(main):
    """Make the modules, and put the names into the module ``main``."""
    exceptions = {name: getattr(_native, name) for name in ("GearsError", "GearsFlatError", "GearsForceStopped")}
    own = globals()
    names = {name: own[name] for name in _SCRIPT_NAMES}
    module = _module(
        "redisgears",
        "Functions of the server for gear functions.",
        {**names, **{name: own[here] for name, here in _MODULE_NAMES.items()}, **exceptions},
    )
    # The exceptions are known by these names in tracebacks and pickles.
    _module(
        "gears",
        "The exceptions of gear functions.",
        {"error": _native.GearsError, "flat_error": _native.GearsFlatError, "forcestopped": _native.GearsForceStopped},
    )
    from redgrease.worker import sessions

    module.PyFuture = _native.PyFuture
    module.PyExecutionSession = sessions.Session
    module.__getattr__ = __getattr__
    # The last one: what is installed is found first.
    sys.meta_path.append(_ClientFinder)
    ai = _module("redisAI", _NO_AI, {})
    ai.__getattr__ = _ai_function
    names.update(redisgears=module, rg=module, copy=copy, io=io)
    _names.update(names)
    main.__dict__.update(names)


#: Filled by ``install``.
_names: dict[str, object] = {}


def namespace(source):
    """Return the globals in which the script ``source`` (bytes) runs."""
    globals_ = {"__name__": "__main__", "__builtins__": builtins, "__doc__": None, **_names}
    for name, (module, attribute) in _COSTLY.items():
        if name.encode() in source:
            import importlib

            loaded = importlib.import_module(module)
            globals_[name] = getattr(loaded, attribute) if attribute else loaded
    for name in _OF_COROUTINES:
        if name.encode() in source:
            globals_[name] = __getattr__(name)
    if b"loop" in source:
        from redgrease.worker import coroutines

        globals_["loop"] = coroutines.loop()
    return globals_
