"""Arguments of a command: as texts, or with their types; and the text that identifies a call.

A command's arguments travel as texts. For a command with ``typed=True`` the package sends one argument instead, which
holds positional and keyword arguments in the package's codec. The function accepts both forms, so clients without the
package can call it with texts.

>>> unpack([pack((1, None), {"unit": "km"})])
((1, None), {'unit': 'km'})
>>> unpack(["1", "x"])
(('1', 'x'), {})
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from . import codec

__all__ = ["CallTexts", "as_texts", "call_text", "check_key", "pack", "positional", "signature_of", "typed", "unpack"]

#: Beginning of an argument that holds all arguments. The NUL keeps it apart from texts that people type.
_MARK = b"\0redgrease:call:1:"
#: Longest text of a call's arguments; of a longer one, a digest is taken.
_TEXT_MAX = 200
#: Calls whose texts are remembered, and the longest ones.
_REMEMBERED_MAX, _REMEMBERED_LENGTH_MAX = 1024, 1000


def pack(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Encode arguments with their types.

    Raises:
        TypeError: an argument has a type that cannot be sent; the message names it. Numbers, text, `bytes`, `None`, and
            lists, tuples, dicts and sets of these can be.
    """
    named = [(f"number {number}", value) for number, value in enumerate(args, 1)]
    for which, value in (*named, *((repr(name), value) for name, value in kwargs.items())):
        try:
            codec.dumps(value, pickle=False)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"argument {which} cannot be sent: {error}: numbers, text, bytes, None, and lists, tuples, dicts and "
                "sets of these can be"
            ) from None
    return _MARK + codec.dumps([list(args), dict(kwargs)], pickle=False)


def unpack(arguments: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a call: of `pack`, or else the texts themselves.

    Raises:
        ValueError: the encoded arguments are damaged. Nothing is unpickled.
    """
    if len(arguments) == 1:
        only = arguments[0]
        data = only.encode() if isinstance(only, str) and only.startswith("\0") else only
        if isinstance(data, bytes) and data.startswith(_MARK):
            args, kwargs = codec.loads(data[len(_MARK) :])
            return tuple(args), kwargs
    return tuple(arguments), {}


def as_texts(args: Sequence[Any], name: str) -> tuple[Any, ...]:
    """Arguments as a command receives them when they are sent as texts.

    Raises:
        TypeError: an argument is `None`, a flag or a collection, which have no text that can be sent.
    """
    from .data import unwrap

    return tuple(_as_text(unwrap(value), number, name) for number, value in enumerate(args))


def _as_text(value: Any, number: int, name: str) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)  # subclasses, such as those of `enum` and numpy, have other texts
    if isinstance(value, float):
        return float.__repr__(value)
    raise TypeError(
        f"argument number {number + 1} of the command {name!r} is {value!r}, which cannot be sent as text: give text, "
        "bytes or a number, or define the command with typed=True"
    )


def signature_of(function: Any) -> inspect.Signature | None:
    """The signature of a function; `None` if it has none that can be found, as some built-ins."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def positional(
    signature: inspect.Signature | None, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Arguments of a call as positional ones, checked against the function's signature.

    Raises:
        TypeError: they do not fit the signature, or one can be given only by keyword.
    """
    if signature is None:
        if kwargs:
            raise TypeError(f"command {name!r} takes no keyword arguments")
        return args
    bound = signature.bind(*args, **kwargs)
    if bound.kwargs:
        bound.apply_defaults()  # a gap before a keyword is filled with the default
    if bound.kwargs:
        raise TypeError(
            f"command {name!r}: {', '.join(bound.kwargs)} cannot be given: only positional arguments are sent as "
            "texts; define the command with typed=True"
        )
    return bound.args


def typed(signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Arguments of a call with their types, as they are sent, checked against the function's signature.

    Raises:
        TypeError: they do not fit the signature, or cannot be sent.
    """
    from .data import unwrap

    if signature is not None:
        signature.bind(*args, **kwargs)
    return (pack([*map(unwrap, args)], {name: unwrap(value) for name, value in kwargs.items()}),)


def check_key(name: str, signature: inspect.Signature | None, key: str | Callable[..., Any] | None) -> None:
    """Refuse an argument `key` of `call_text` that no call can have a text of.

    Raises:
        ValueError: it is a format with a field that is no parameter of the function, or cannot be parsed.
        TypeError: it is neither a format nor a function.
    """
    if key is None or callable(key):
        return
    if not isinstance(key, str):
        raise TypeError(f"key of the command {name!r} is a format or a function, got {key!r}")
    fields = [field for _, field, _, _ in string.Formatter().parse(key) if field is not None]
    if signature is None:
        return
    for field in fields:
        parameter = re.split(r"[.\[]", field, maxsplit=1)[0]
        if parameter and not parameter.isdecimal() and parameter not in signature.parameters:
            raise ValueError(
                f"key of the command {name!r} is {key!r}, and the function has no parameter {parameter!r}: it has "
                f"{', '.join(signature.parameters) or 'none'}"
            )


def call_text(
    name: str,
    signature: inspect.Signature | None,
    key: str | Callable[..., Any] | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> str:
    """The text that identifies a call: equal calls have equal texts, in every process.

    Args:
        name: name of the command.
        signature: of its function; defaults of parameters belong to the arguments.
        key: a format of the parameters, such as ``"user:{user_id}"``, or a function of the same arguments that returns
            a text or a number; default: name and arguments.
        args: positional arguments.
        kwargs: keyword arguments.

    Raises:
        TypeError: the arguments do not fit, or have no stable text, or `key` gave none.

    >>> call_text("area", None, None, (2, "cm"), {})
    "area(2, 'cm')"
    """
    if signature is not None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        args, kwargs = bound.args, bound.kwargs
        named = dict(bound.arguments)
    else:
        named = dict(kwargs)
    if key is None:
        texts = [*map(_stable, args), *(f"{name}={_stable(value)}" for name, value in sorted(kwargs.items()))]
        text = ", ".join(texts)
        if len(text) > _TEXT_MAX:
            text = "#" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return f"{name}({text})"
    try:
        made = key.format(*args, **named) if isinstance(key, str) else key(*args, **kwargs)
    except (LookupError, AttributeError, ValueError) as error:
        if not isinstance(key, str):
            raise
        raise TypeError(f"key of the command {name!r}: {key!r} cannot be made of the arguments: {error!r}") from error
    if isinstance(made, bytes):
        made = made.decode("utf-8", "backslashreplace")
    if not isinstance(made, (str, int)) or isinstance(made, bool) or not str(made) or str(made).startswith("}"):
        raise TypeError(f"key of the command {name!r} gave {made!r}: it is a text or a number, and not empty")
    return str(made)


class CallTexts:
    """Texts of the calls of a command, by the arguments as they are sent; the last ones are remembered.

    Args:
        name: see `call_text`.
        signature: see `call_text`.
        key: see `call_text`.
    """

    def __init__(self, name: str, signature: inspect.Signature | None, key: str | Callable[..., Any] | None) -> None:
        self._of_command = name, signature, key
        self._remembered = functools.lru_cache(_REMEMBERED_MAX)(self._text)

    def __call__(self, words: tuple[Any, ...]) -> str:
        """The text of one call.

        Args:
            words: texts, or what `pack` made.

        Raises:
            TypeError: see `call_text`.
        """
        return self._remembered(words) if sum(map(len, words)) <= _REMEMBERED_LENGTH_MAX else self._text(words)

    def _text(self, words: tuple[Any, ...]) -> str:
        return call_text(*self._of_command, *unpack(words))


def _stable(value: Any) -> str:
    """The literal of a value, the same in every process."""
    kind = type(value)
    if kind in (type(None), bool, int, float, complex, str, bytes, bytearray):
        return repr(value)
    if kind in (list, tuple):
        inner = ", ".join(map(_stable, value))
        return f"[{inner}]" if kind is list else f"({inner}{',' if len(value) == 1 else ''})"
    if kind in (set, frozenset):
        return f"{kind.__name__}({', '.join(sorted(map(_stable, value)))})"
    if kind is dict:
        return "{" + ", ".join(sorted(f"{_stable(name)}: {_stable(item)}" for name, item in value.items())) + "}"
    raise TypeError(
        f"an argument is or holds a {kind.__module__}.{kind.__qualname__}, which has no stable text: give key="
    )
