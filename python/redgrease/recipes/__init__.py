"""Ready-made functions: registering one adds a command to the server.

>>> from redgrease.recipes import cache_get
>>> cache_get.key_of("http://example.org/logo.png")
'cache_get:{http://example.org/logo.png}'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import cache_get as cache_get

__all__ = ["cache_get"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
