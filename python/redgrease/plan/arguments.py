"""The check of every argument of the operations, ``run`` and ``register``.

Error texts are those that clients of RedisGears know. Names and ranges come from the core, over ``redgrease._native``.
"""

import functools
import types

from redgrease import _native
from redgrease.plan import sources
from redgrease.plan.options import READER_OPTIONS

#: Flags of code objects: coroutine, iterable coroutine, async generator (``inspect`` costs too much to import).
_COROUTINE = 0x80
_ASYNC_GENERATOR = 0x200
_ASYNC_FLAGS = _COROUTINE | 0x100 | _ASYNC_GENERATOR


def error(text):
    """Return the exception for a wrong argument."""
    return _native.GearsError(text)


def check(kind, *callbacks):
    """Raise an error unless the callbacks of a step can be called as steps are."""
    for callback in callbacks:
        if not callable(callback):
            raise error(f"{kind} argument must be a function")
        if is_async(callback, _ASYNC_GENERATOR):
            raise error(f"{kind} got an async generator: use a coroutine that returns a list")


def is_async(callback, flags=None):
    """Whether a call returns a coroutine or an async generator, as far as its code shows."""
    # Only known types are inspected: any other object may have an attribute of any name.
    while "_is_coroutine_marker" not in (getattr(callback, "__dict__", None) or ()):
        if isinstance(callback, types.FunctionType):
            return bool(callback.__code__.co_flags & (flags or _ASYNC_FLAGS))
        if isinstance(callback, types.MethodType):
            callback = callback.__func__
        elif isinstance(callback, functools.partial):
            callback = callback.func
        elif isinstance(callback, type) or not isinstance(type(callback).__call__, types.FunctionType):
            return False
        else:
            callback = type(callback).__call__
    # It is marked as a coroutine function.
    return bool((flags or _ASYNC_FLAGS) & _COROUTINE)


def check_options(action, reader, options):
    """Raise an error that names an unknown keyword of the reader's action, and the nearest known one."""
    common, of_readers = READER_OPTIONS[action]
    known = (*common, "reply", *of_readers.get(reader, ()))
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
        raise error(f"{action} of the {reader} has no keyword '{name}'{hint}")


def mode_of(options, known):
    """Take the mode out of the options."""
    mode = options.pop("mode", "async")
    if not isinstance(mode, str):
        raise error("execution mode must be a string")
    if mode not in known:
        raise error("unknown execution mode")
    return mode


def reply_of(options):
    """Take the style of replies out of the options."""
    reply = options.pop("reply", "compat")
    if reply not in ("compat", "plain", "pickle"):
        raise error("reply must be 'compat', 'plain' or 'pickle'")
    return reply


def run_arguments(reader, arg, options):
    """Return the function that makes the records in the worker (None: the server does), and the reader's arguments."""
    if reader == "KeysReader":
        return None, {
            "pattern": _text(arg),
            "noScan": _boolean(options, "noScan", False, "exactMatch value is not boolean"),
            "readValue": _boolean(options, "readValue", True, "readValue value is not boolean"),
        }
    if reader == "StreamReader":
        from_id = options.get("fromId", "0-0")
        if not isinstance(from_id, str):
            raise error("fromId argument must be a string")
        return None, {
            "key": _text(arg),
            "fromId": from_id,
            "pattern": _boolean(options, "pattern", False, "pattern value is not boolean"),
        }
    if reader == "PythonReader":
        if not callable(arg):
            raise error("pyreader argument must be a function")
        if is_async(arg):
            raise error("pyreader got an async function: use a generator, and coroutines in the steps")
        return arg, {}
    if reader == "KeysOnlyReader":
        return _keys_only(arg, options)
    if reader == "ShardsIDReader":
        return sources.shard_id, {}
    raise error("Given reader do not support run or not exists")


def _keys_only(arg, options):
    count = options.get("count", 1000)
    if isinstance(count, str) and count.isdecimal():
        options = {**options, "count": int(count)}
    elif not isinstance(count, (int, float)) or isinstance(count, bool):
        return sources.refused_count(count), {"pattern": None}
    count = _number(options, "count", 1000, "count argument must be a number")
    generator = options.get("patternGenerator")
    # What cannot be called fails when it is: as an error of the execution.
    if callable(generator) and is_async(generator):
        raise error("patternGenerator got an async function: use a generator")
    no_scan = _boolean(options, "noScan", False, "noScan value is not boolean")
    if generator is not None:
        return sources.generated_keys(generator, count), {"pattern": None}
    pattern = arg if isinstance(arg, (str, bytes)) else str(arg)
    return None, {"pattern": _text(pattern), "noScan": no_scan, "count": count}


def register_arguments(reader, prefix, mode, options):
    """Return the reader's arguments of a registration."""
    if reader == "KeysReader":
        key_types = _texts(options, "keyTypes", "given keyTypes is not iterable", "given key type is not string")
        key_types = key_types and [name.lower() for name in key_types]
        if key_types and not all(name in _native.KEY_TYPES for name in key_types):
            raise error("unknown key type")
        # Scripts pass what `run` takes; an event names its key, so that there is nothing to scan.
        _boolean(options, "noScan", False, "noScan value is not boolean")
        if options.get("commands") and not prefix:
            raise error("Empty perfix given to command hooker")
        return {
            "prefix": _text(prefix),
            "eventTypes": _texts(
                options, "eventTypes", "given eventTypes is not iterable", "given event type is not string"
            ),
            "unknownEvents": _boolean(options, "unknownEvents", False, "unknownEvents value is not boolean"),
            "keyTypes": key_types,
            "readValue": _boolean(options, "readValue", True, "readValue is not boolean"),
            "commands": _texts(
                options, "commands", "given commands is not iterable", "given command type is not string"
            )
            or None,
        }
    if reader == "StreamReader":
        return _stream_arguments(prefix, mode, options)
    if reader == "CommandReader":
        return _command_arguments(options)
    raise error("given reader does not exists or does not support register")


def _text(value):
    if not isinstance(value, (str, bytes)):
        raise error("regex argument must be a string")
    return value if type(value) in (str, bytes) else str(value)


def _boolean(options, name, default, text):
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise error(text)
    return value


def _number(options, name, default, text):
    value = options.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise error(f"{text}, got {_shown(value)}")
    return in_range(name, value)


def in_range(name, value):
    """Return a number of the user as an int, or raise an error with its name, its value and its range."""
    least, most, unit = _native.NUMBER_RANGES[name]
    if not least <= value <= most or value != int(value):
        raise error(f"{name} must be a whole number from {least} to {most}{unit}, got {_shown(value)}")
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
        raise error(f"{name} must be a list of names, got {_shown(value)}: write {name}=[{_shown(value)}]")
    try:
        items = list(value)
    except TypeError:
        raise error(not_iterable) from None
    if not all(isinstance(item, str) for item in items):
        raise error(not_string)
    if not items and name != "commands":
        raise error(f"{name} is an empty list, with which the function never runs: leave it out to have it run for all")
    return [str(item) for item in items]


def _stream_arguments(prefix, mode, options):
    args = {
        "prefix": _text(prefix),
        "batch": _number(options, "batch", 1, "batch argument must be a number"),
        "duration": _number(options, "duration", 0, "duration argument must be a number"),
    }
    policy = options.get("onFailedPolicy", "continue")
    if not isinstance(policy, str):
        raise error("onFailedPolicy must be a string (Continue/Abort/Retry)")
    policy = policy.lower()
    if policy not in _native.FAILURE_POLICIES:
        raise error("onFailedPolicy must be Continue/Abort/Retry")
    if mode == "sync" and policy != "continue":
        raise error("ExecutionMode sync can only be combined with OnFailedPolicy Continue")
    args["onFailedPolicy"] = policy
    args["onFailedRetryInterval"] = _number(
        options, "onFailedRetryInterval", 1, "retryInterval argument must be a number"
    )
    args["trimStream"] = _boolean(options, "trimStream", True, "pyTrimmStream argument must be a boolean")
    return args


def _command_arguments(options):
    trigger, hook, key_prefix = (options.get(name) for name in ("trigger", "hook", "keyprefix"))
    if trigger is None and hook is None:
        raise error("no trigger or hook argument was given")
    if trigger is not None and (hook is not None or key_prefix is not None):
        raise error("trigger argument can not be given with keyprefix or hook")
    for name, value in (("trigger", trigger), ("hook", hook), ("keyprefix", key_prefix)):
        if value is not None and not isinstance(value, str):
            raise error(f"{name} argument is not string")
    in_order = options.get("inorder", False)
    if not isinstance(in_order, bool):
        raise error("inorder argument is be boolean")
    return {"trigger": trigger, "hook": hook, "keyprefix": key_prefix, "inorder": in_order}
