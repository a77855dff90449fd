"""Serialization of plans: functions by value, bound to the namespace of their session.

All plans of a script are one pickle, so that shared objects stay shared. The namespace itself is not pickled: a
function is pickled with the names that it uses, and is bound to the namespace of the session that loads it.
"""

import io
import pickle
import sys

import cloudpickle  # type: ignore[import-untyped]

from redgrease import _native

_NAMESPACE = "namespace"
_LOOP = "loop"


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    def __init__(self, file, namespace):
        super().__init__(file, protocol=4)
        self._namespace = namespace
        # Loaded functions of the script share this dictionary.
        self.globals_ref[id(namespace)] = namespace

    def persistent_id(self, obj):
        if obj is self._namespace:
            return _NAMESPACE
        coroutines = sys.modules.get("redgrease.worker.coroutines")
        return _LOOP if coroutines is not None and coroutines.is_loop(obj) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, namespace):
        super().__init__(file)
        self._namespace = namespace

    def persistent_load(self, pid):
        if pid == _NAMESPACE:
            return self._namespace
        if pid == _LOOP:
            from redgrease.worker import coroutines

            return coroutines.loop()
        raise pickle.UnpicklingError(f"unknown reference {pid!r}")


def _pickled(obj, namespace):
    file = io.BytesIO()
    _Pickler(file, namespace).dump(obj)
    return file.getvalue()


def dumps(plans, namespace):
    """Return one pickle of ``[(number, spec, callbacks, on_registered), ...]``; a plan that is run has its source, too.

    Raises ``GearsError`` that names the callback that cannot be pickled.
    """
    try:
        return _pickled(plans, namespace)
    except Exception as error:
        name, cause = _culprit(plans, namespace) or ("unknown", error)
        raise _native.GearsError(
            f"Error occured when serialized a python callback, callback={name} error={cause}"
        ) from None


def loads(blob, namespace):
    """Load the output of ``dumps``; functions of the script get ``namespace`` as their globals."""
    return _Unpickler(io.BytesIO(blob), namespace).load()


def _culprit(plans, namespace):
    for _number, _spec, callbacks, *others in plans:
        for part in (*(each for of_step in callbacks for each in of_step), *others):
            try:
                _pickled(part, namespace)
            except Exception as error:
                return getattr(part, "__name__", type(part).__name__), error
    return None
