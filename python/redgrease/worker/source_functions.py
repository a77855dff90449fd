"""Functions of clients in other languages: Python source, paths of modules, and constants.

What is pickled in their requests is a call of ``load``.
"""

import importlib
import textwrap

from redgrease import _native
from redgrease.plan.arguments import is_async
from redgrease.plan.builder import Plan
from redgrease.worker import runtime

FORMAT = 1
"""Version of the dict that ``load`` takes."""
_SHOWN_MAX = 60


def load(data):
    """Return the callbacks of a function as a ``Plan`` without an encoded plan.

    ``data`` is an encoded dict: ``format``; ``steps``, a list of a name and a list of parts for each step; ``source``,
    the part that makes records, and ``onRegistered`` (or None). A part is a dict of ``source`` (code) and ``names``
    (its constants), of ``path`` (``module:function``), of ``apply`` (a part that is called with the arguments of a
    command), or of ``value`` (a constant).

    Raises:
        GearsFlatError: a part is wrong; the text has the step and the reason.
    """
    content = _native.loads(data)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _native.GearsFlatError(
            "BADPLAN the function was sent by a client that this version of redgrease does not understand: use the "
            "same version for client and server"
        )
    namespace = runtime.namespace("\n".join(_sources(content)).encode())
    callbacks = [
        tuple(_object(part, namespace, f"step {number} '{kind}'") for part in parts)
        for number, (kind, parts) in enumerate(content["steps"], 1)
    ]
    source, on_registered = (
        content[name] and _object(content[name], namespace, place)
        for name, place in (("source", "the reader"), ("onRegistered", "onRegistered"))
    )
    return Plan(None, callbacks, source, on_registered)


def _sources(content):
    parts = [part for _, parts in content["steps"] for part in parts]
    for part in (*parts, content["source"], content["onRegistered"]):
        if part is not None:
            yield part.get("apply", part).get("source", "")


def _object(part, namespace, place):
    """Return the function or constant that a part describes."""
    if "value" in part:
        return part["value"]
    if "apply" in part:
        return _applied(_object(part["apply"], namespace, place))
    try:
        made = (
            _imported(part["path"]) if "path" in part else _evaluated(part["source"], part["names"], namespace, place)
        )
    except Exception as error:
        raise _native.GearsFlatError(f"BADPLAN {place}: {_reason(error)}") from None
    if not callable(made):
        raise _native.GearsFlatError(f"BADPLAN {place} must be a function, got {type(made).__name__}: {_shown(part)}")
    return made


def _imported(path):
    module, _, attributes = path.partition(":")
    found = importlib.import_module(module)
    for name in attributes.split("."):
        found = getattr(found, name)
    return found


def _evaluated(source, names, namespace, place):
    """Return the value of an expression, or the last function that statements define."""
    source = textwrap.dedent(source).strip()
    scope = {**namespace, **names} if names else namespace
    try:
        expression = compile(source, f"<{place}>", "eval", dont_inherit=True)
    except SyntaxError:
        statements = compile(source, f"<{place}>", "exec", dont_inherit=True)
        before = dict(scope)
        exec(statements, scope)
        made = [value for name, value in scope.items() if callable(value) and before.get(name) is not value]
        if not made:
            raise ValueError("the statements define no function") from None
        return made[-1]
    return eval(expression, scope)


def _applied(function):
    if is_async(function):

        async def apply(record):
            return await function(*record[1:])

        return apply
    return lambda record: function(*record[1:])


def _reason(error):
    if isinstance(error, SyntaxError):
        line = f" in line {error.lineno}: {error.text.strip()[:_SHOWN_MAX]}" if error.text else ""
        return f"SyntaxError: {error.msg}{line}"
    return f"{type(error).__name__}: {error}"


def _shown(part):
    text = str(part.get("path") or part.get("source"))
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."
