"""Render an exception for the client: one line, without the frames of this package."""

import os

from redgrease import _native

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OWN = tuple(os.path.join(_PACKAGE, name, "") for name in ("plan", "worker"))


def describe(error: BaseException, with_traceback: bool = True) -> str:
    """Return the text of ``error``: the ``str()`` of the list of its formatted traceback.

    Without a traceback, or when it cannot be formatted: ``Error type: <class 'X'>, Value: <message>``. A flat error is
    just its message.
    """
    if isinstance(error, _native.GearsFlatError):
        return str(error)
    if isinstance(error, _native.GearsForceStopped) and not error.args:
        # It was injected as a class, without a message.
        error.args = ("Execution was aborted",)
    if with_traceback and (error.__traceback__ is not None or isinstance(error, SyntaxError)):
        try:
            return str(_lines(error))
        except Exception:
            pass
    try:
        message = str(error)
    except Exception:
        message = "<no text>"
    return f"Error type: {type(error)}, Value: {message}"


def _lines(error):
    import traceback

    described = traceback.TracebackException(type(error), error, error.__traceback__)
    _cut(described)
    lines = list(described.format())
    # Programs look for these words, which older interpreters used for nearly every such error.
    if type(error) is SyntaxError and "invalid syntax" not in lines[-1]:
        lines[-1] = lines[-1].rstrip("\n") + " (invalid syntax)\n"
    return lines


def _cut(described):
    """Remove the frames of this package from a traceback and its causes."""
    seen = set()
    left = [described]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(_OWN)]
        left += (one.__cause__, one.__context__)
        left += getattr(one, "exceptions", None) or ()
