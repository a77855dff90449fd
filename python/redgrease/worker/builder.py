"""``GearsBuilder``: builds a plan, and runs or registers it."""

import itertools
import os

from redgrease import _native
from redgrease.plan.builder import PlanBuilder
from redgrease.worker import pickling

#: Numbers of plans are unique over all workers: a session may move from one to another.
_numbers = itertools.count((int.from_bytes(os.urandom(6), "little") >> 6 << 20) + 1)


def current_session():
    """Return the session that the calling thread belongs to, or None; replaced by ``sessions``."""
    return None


class GearsBuilder(PlanBuilder):
    """Builds a plan.

    ``reader`` is the name of the reader, ``defaultArg`` its argument when ``run`` gets none, and ``desc`` a text shown
    with registrations. Operations change the builder and return it.
    """

    def run(self, arg=None, convertToStr=True, collect=True, **options):
        """Start an execution; return its id, which functions can await. Arguments as in ``PlanBuilder``."""
        session = current_session()
        in_script = session is not None and session.runs_script_here()
        options = _choose_reply(options, pickled=in_script and not session.client_has_codec)
        plan = super().run(arg, convertToStr, collect, **options)
        number = next(_numbers)
        blob = b""
        if session is not None and _native.is_cluster() and _native.loads(plan.spec)["mode"] == "async":
            # Other shards run it, too.
            recipe = (session.number_in_data(number), plan.spec, plan.callbacks, None, plan.source)
            blob = pickling.dumps([recipe], session.namespace)
        made = _act(number, plan, lambda: _native.run_plan(number, plan.spec, blob))
        if in_script:
            return made
        from redgrease.worker.coroutines import Execution

        return Execution(made)

    def register(self, prefix="*", convertToStr=True, collect=True, **options):
        """Register the function for events; return the registration's id. Arguments as in ``PlanBuilder``."""
        session = current_session()
        if session is None:
            raise _native.GearsError("this thread belongs to no session: bind it with setGearsSession")
        of_client = options.get("trigger") is not None
        options = _choose_reply(options, pickled=of_client and not session.client_has_codec)
        plan = super().register(prefix, convertToStr, collect, **options)
        number = next(_numbers)
        recipe = (session.number_in_data(number), plan.spec, plan.callbacks, plan.on_registered)
        blob = pickling.dumps([recipe], session.namespace)
        in_script = session.runs_script_here()
        # Stored before the server knows it: an event may start it, and `onRegistered` run, before the reply arrives.
        session.registered[number] = plan.on_registered
        try:
            made = _act(number, plan, lambda: _native.register_plan(number, plan.spec, b"" if in_script else blob))
        except BaseException:
            del session.registered[number]
            raise
        if in_script:
            session.script_plans.append(recipe)
        return made


def _choose_reply(options, pickled):
    """Replace the reply ``"objects"``: the package's functions want Python objects for results.

    Clients that announced the codec get them as its values in any case. A script of any other client may be one of
    RedGrease 0.3, which expects pickles; every other function gives plain values.
    """
    if options.get("reply") != "objects":
        return options
    return {**options, "reply": "pickle" if pickled else "plain"}


def _act(number, plan, action):
    _native.add_plan(number, _native.current_session(), plan.source, plan.spec, plan.callbacks)
    try:
        return action()
    except BaseException:
        _native.remove_plans([number])
        raise


#: The longest time between two calls of a time event, in seconds: a year.
_PERIOD_MAX = 366 * 24 * 3600


def registerTE(*args):
    """Call a function again and again, on masters only: ``registerTE(seconds, callback, keyName=None)``.

    Args:
        seconds: Seconds between the end of a call and the next one, from 1 to a year.
        callback: A function without parameters. If it raises, it is not called again.
        keyName: The name of a key that stands for it: the time event is saved with the key, and ends without it.

    Returns:
        True, or False if the key exists already.
    """
    if len(args) < 2:
        raise _native.GearsError("not enough arguments for time event")
    seconds, callback, key = (*args, None)[:3]
    if not callable(callback):
        raise _native.GearsError("callback must be a function")
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise _native.GearsError("time argument must be a long")
    if not 1 <= seconds <= _PERIOD_MAX:
        raise _native.GearsError(f"time argument must be from 1 to {_PERIOD_MAX} seconds, got {seconds}")
    if key is not None and not isinstance(key, (str, bytes)):
        raise _native.GearsError("key argument must be a string")
    session = current_session()
    if session is None:
        raise _native.GearsError("can not create time event on a python created thread")
    plan = PlanBuilder("ShardsIDReader").foreach(lambda _: callback()).run(None, False, False, mode="async_local")
    number = next(_numbers)
    recipe = (session.number_in_data(number), plan.spec, plan.callbacks, None)
    blob = pickling.dumps([recipe], session.namespace)
    session.registered[number] = None
    name = key.encode() if isinstance(key, str) else key
    # The server gives it a record: it has no source of its own.
    _native.add_plan(number, session.number, None, plan.spec, plan.callbacks)
    try:
        made = _native.register_time_event(number, plan.spec, blob, seconds, name)
    except BaseException:
        made = False
        raise
    finally:
        if not made:
            del session.registered[number]
            _native.remove_plans([number])
    return made
