"""Refusals, and values in messages."""

from __future__ import annotations

from typing import Any

__all__ = ["Refused", "shown", "span"]

_SHOWN_MAX = 120


class Refused(Exception):  # noqa: N818 - a reply, not a fault
    """A request that a cache refuses, or something that is not available.

    Args:
        kind: one word for programs.
        text: a sentence for people.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind} {text}")
        self.kind = kind
        self.text = text


def shown(value: Any) -> str:
    """A value for a message: quoted, and shortened if it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}... ({len(value)} long)"


def span(seconds: float) -> str:
    """A measured time for a message.

    >>> span(0.999765), span(0.0496)
    ('1.0 s', '50 ms')
    """
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"
