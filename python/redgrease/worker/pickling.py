"""Plans as bytes: functions by value, bound to the one namespace of their session.

All plans of a script go into one pickle, so that what they share stays shared. The namespace itself is not pickled: a
function that refers to it brings the names that it uses, and finds itself in the namespace of whoever reads it.
"""

import io
import pickle

import cloudpickle  # type: ignore[import-untyped]

from redgrease import _native

_NAMESPACE = "namespace"


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    def __init__(self, file, namespace):
        super().__init__(file, protocol=4)
        self._namespace = namespace
        # Functions of the script share this dictionary when they are read again.
        self.globals_ref[id(namespace)] = namespace

    def persistent_id(self, obj):
        return _NAMESPACE if obj is self._namespace else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, namespace):
        super().__init__(file)
        self._namespace = namespace

    def persistent_load(self, pid):
        if pid == _NAMESPACE:
            return self._namespace
        raise pickle.UnpicklingError(f"unknown reference {pid!r}")


def _pickled(obj, namespace):
    file = io.BytesIO()
    _Pickler(file, namespace).dump(obj)
    return file.getvalue()


def dumps(plans, namespace):
    """Return one pickle of ``[(number, steps, on_registered), ...]``.

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
    """Read what ``dumps`` wrote; functions of the script get ``namespace`` as their globals."""
    return _Unpickler(io.BytesIO(blob), namespace).load()


def _culprit(plans, namespace):
    for _number, steps, on_registered in plans:
        for part in (*(arg for step in steps for arg in step[1:]), on_registered):
            try:
                _pickled(part, namespace)
            except Exception as error:
                return getattr(part, "__name__", type(part).__name__), error
    return None
