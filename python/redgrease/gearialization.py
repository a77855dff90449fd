"""Serialization of functions: a plan and its pickled callbacks, or a short script that contains the function.

Our servers take the plan with the callbacks; others (RedisGears) run the script.

The function is described by plain data, the names and arguments of its operations, and pickled by cloudpickle
(protocol 4). Functions and classes of the main script, and of modules that are not installed as packages, are pickled
by value, with everything they refer to. Installed modules are pickled by name and must be importable on the server.
Code can be loaded only by the Python version that wrote it, which the request names.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import operator
import os
import pickle
import site
import sys
import sysconfig
import threading
import types
import warnings
from collections.abc import Iterator
from typing import Any

from . import __version__
from .gears import ClosedGearFunction, GearFunction, OpenGearFunction, Register, Run, describe, rebuild, replay
from .operations import FORMER_DEFAULTS, unsupported_mode

__all__ = [
    "FORMAT",
    "SerializedFunction",
    "deserialize_gear_function",
    "get_function_string",
    "load_plan",
    "plan_of",
    "run_serialized",
    "serialize_gear_function",
]

FORMAT = 1
"""Version of the layout inside the pickle."""
PICKLE_PROTOCOL = 4
"""Pickle protocol."""

#: Marks of code in a pickle of cloudpickle.
_CODE_MARKS = (b"_make_function", b"_make_skeleton_class", b"CodeType")
_by_value_lock = threading.Lock()


def _renew_lock() -> None:
    """A thread of the parent may have held the lock."""
    global _by_value_lock
    _by_value_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def serialize_gear_function(function: GearFunction[Any]) -> bytes:
    """Serialize a gear function.

    Raises:
        TypeError: a callback refers to an object that cannot be pickled, such as an open connection.
    """
    import cloudpickle  # type: ignore[import-untyped]

    steps = describe(function)
    content = {"format": FORMAT, "steps": steps, "requirements": sorted(function.requirements)}
    with _by_value_lock, _modules_by_value():
        try:
            data: bytes = cloudpickle.dumps(content, protocol=PICKLE_PROTOCOL)
        except Exception as error:
            raise TypeError(
                f"{function!r} cannot be sent to the server: {error}: objects that it refers to are sent with it, "
                "so it must not refer to open files, locks or connections"
            ) from error
    return data


def deserialize_gear_function(data: bytes, python_version: tuple[Any, ...] | None = None) -> GearFunction[Any]:
    """Load a gear function that `serialize_gear_function` wrote, or that of RedGrease 0.3.

    Args:
        data: the bytes.
        python_version: version of the interpreter that wrote them.

    Raises:
        SystemError: they hold code of another Python version.
        ValueError: they were written by a version of redgrease with another layout.
    """
    if python_version is not None and tuple(python_version[:2]) != sys.version_info[:2] and _holds_code(data):
        raise SystemError(
            f"PYTHONVERSION this function was sent from Python {_dotted(python_version)}, and the server's worker is "
            f"Python {_dotted(sys.version_info)}: use the same version on both sides, or send the function as text"
        )
    try:
        content = _Unpickler(io.BytesIO(data)).load()
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"{missing}: the function needs this module on the server; name its package in requirements=[...]",
            name=missing.name,
        ) from missing
    if isinstance(content, GearFunction):  # as RedGrease 0.3 sends it: a pickle of the object
        return content
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError("the function was sent by a version of redgrease that this one does not understand")
    return rebuild(content["steps"], content.get("requirements"))


class _Unpickler(pickle.Unpickler):
    """Finds what pickles of RedGrease 0.3 refer to by names that are gone."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "redgrease.gears" and name in FORMER_DEFAULTS:
            return FORMER_DEFAULTS[name]
        return super().find_class(module, name)


def get_function_string(function: Any) -> tuple[str, dict[str, Any]]:
    """The script for a function, and facts about it.

    Args:
        function: a gear function or builder, the path of a script, or the text of one.

    Returns:
        The script, and for objects a dict with ``requirements`` and, for commands, ``trigger``.

    Raises:
        TypeError: it is none of these, or cannot be pickled.
        FileNotFoundError: a path of a script that does not exist.
    """
    function = closed_function(function)
    if isinstance(function, GearFunction):
        context: dict[str, Any] = {"requirements": set(function.requirements)}
        trigger = trigger_name(function)
        if trigger is not None:
            context["trigger"] = trigger
        return SerializedFunction(function).script, context
    if not isinstance(function, (str, os.PathLike)):
        raise TypeError(f"{function!r} is not a gear function: give a function object, a path, or the text of a script")
    if isinstance(function, os.PathLike) or _is_path(function):
        with open(function, encoding="utf-8") as script:
            return script.read(), {}
    return function, {}


def closed_function(function: Any) -> Any:
    """`function`, or if it is an open one, that function closed by ``run()``; anything else unchanged."""
    from .runtime import GearsBuilder

    if isinstance(function, GearsBuilder):
        function = function.closed or function.gearfunction
    if isinstance(function, OpenGearFunction):
        if not function.supports_batch_mode:
            raise unsupported_mode("run", function.reader)

        return ClosedGearFunction(Run(None, False, True), function)
    return function


def trigger_name(function: GearFunction[Any]) -> str | None:
    """Name of the command that a function registers, or `None`."""
    action = function.operation
    name = action.kwargs.get("trigger") if isinstance(action, Register) else None
    return name if function.reader == "CommandReader" and isinstance(name, str) else None


def run_serialized(data: str, python: tuple[Any, ...], package: str, builder: Any) -> Any:
    """Run a sent function; its script calls this on the server.

    Args:
        data: the function, in base64.
        python: version of the interpreter that sent it.
        package: version of redgrease that sent it.
        builder: the server's ``GearsBuilder``.
    """
    return replay(_received(base64.b64decode(data), python, package), builder)


def load_plan(data: bytes, python: tuple[Any, ...], package: str) -> Any:
    """Load the plan of a sent function with its callbacks: what is pickled in a request calls this in a worker.

    Args:
        data: the function.
        python: version of the interpreter that sent it.
        package: version of redgrease that sent it.

    Returns:
        A `redgrease.plan.builder.Plan`.
    """
    return plan_of(_received(data, python, package))


def plan_of(function: GearFunction[Any]) -> Any:
    """The plan of a closed function; it needs `redgrease._native`.

    Raises:
        redgrease._native.GearsError: an argument is wrong.
    """
    from .plan.builder import PlanBuilder

    return replay(function, PlanBuilder)


def _received(data: bytes, python: tuple[Any, ...], package: str) -> GearFunction[Any]:
    try:
        return deserialize_gear_function(data, python)
    except ValueError as error:
        raise ValueError(f"{error} (client: redgrease {package}, server: redgrease {__version__})") from error


class SerializedFunction:
    """A closed gear function as it is sent.

    Raises:
        TypeError: it cannot be pickled.
    """

    def __init__(self, function: GearFunction[Any]) -> None:
        self._function = function
        self._data = serialize_gear_function(function)
        self._version = tuple(sys.version_info[:3])

    @property
    def header(self) -> str:
        """One line that says what it is."""
        return f"# redgrease function, format {FORMAT}, python {_dotted(self._version)}, package {__version__}"

    @property
    def script(self) -> str:
        """A script that runs or registers the function."""
        data = base64.b64encode(self._data).decode("ascii")
        return (
            f"{self.header}\n"
            "import redgrease.gearialization\n"
            f"redgrease.gearialization.run_serialized({data!r}, {self._version!r}, {__version__!r}, GearsBuilder)\n"
        )

    def words(self) -> list[Any] | None:
        """The option of ``RG.PYEXECUTE`` that carries the plan and the callbacks.

        `None` if an argument is wrong: the script gets the error, with its traceback, from the server.
        """
        try:
            plan = plan_of(self._function)
        except Exception:
            return None
        action = "REGISTER" if isinstance(self._function.operation, Register) else "RUN"
        words = [action, plan.spec, pickle.dumps(self, protocol=PICKLE_PROTOCOL)]
        if _holds_code(self._data):
            words += ["PYTHON", _dotted(self._version[:2])]
        return words

    def __reduce__(self) -> Any:
        return load_plan, (self._data, self._version, __version__)


def __getattr__(name: str) -> Any:
    current = {
        "seralize_gear_function": "serialize_gear_function",
        "deseralize_gear_function": "deserialize_gear_function",
    }
    if name in current:
        warnings.warn(f"{__name__}.{name} is spelled {current[name]} now", DeprecationWarning, stacklevel=2)
        return globals()[current[name]]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _dotted(version: Any) -> str:
    return ".".join(str(part) for part in tuple(version)[:3])


def _holds_code(data: bytes) -> bool:
    return any(mark in data for mark in _CODE_MARKS)


def _is_path(text: str) -> bool:
    if "\n" in text or "\0" in text or not text.strip():
        return False
    if os.path.exists(text):
        return True
    if text.endswith(".py") and not any(sign in text for sign in "()=;'\" "):
        raise FileNotFoundError(f"there is no script {text!r}")
    return False


# --------------------------------------------------------------------------------------------------------------
# Modules of callbacks
# --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _modules_by_value() -> Iterator[None]:
    """Pickle functions and classes by value that belong to modules which the server cannot import."""
    import cloudpickle

    by_value = cloudpickle.list_registry_pickle_by_value()
    ours = [module for module in _uninstalled() if module.__name__ not in by_value]
    try:
        for module in ours:
            cloudpickle.register_pickle_by_value(module)
        yield
    finally:
        for module in ours:
            cloudpickle.unregister_pickle_by_value(module)


#: Names and modules of `sys.modules` when it was last looked through, and those of them that are not installed.
_looked_through: tuple[list[str], list[Any], list[types.ModuleType]] = ([], [], [])


def _uninstalled() -> list[types.ModuleType]:
    """Modules that the server cannot import. Programs may have thousands, of which each run would look at all."""
    global _looked_through
    names, modules, found = _looked_through
    now = list(sys.modules.values())
    if list(sys.modules) == names and len(now) == len(modules) and all(map(operator.is_, now, modules)):
        return found
    items = list(sys.modules.items())
    found = [
        module
        for name, module in items
        if isinstance(module, types.ModuleType)
        and module.__dict__.get("__name__") == name
        and name != "__main__"
        and not _is_installed(name, module.__dict__.get("__file__"))
    ]
    _looked_through = [name for name, _ in items], [module for _, module in items], found
    return found


@functools.lru_cache(maxsize=1)
def _installed_places() -> tuple[str, ...]:
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    with contextlib.suppress(AttributeError):  # some virtual environments have a `site` without these
        places.update(site.getsitepackages())
        places.add(site.getusersitepackages())
    return tuple(os.path.join(os.path.realpath(place), "") for place in places if place)


@functools.cache
def _is_installed(name: str, file: str | None) -> bool:
    """Whether a module belongs to the interpreter, to an installed package, or to redgrease itself."""
    if name.partition(".")[0] == __package__ or not isinstance(file, str) or not file.endswith(".py"):
        return True
    place = os.path.realpath(file)
    if place.startswith(_installed_places()):
        return True
    is_package = os.path.basename(place) == "__init__.py"
    for _ in range(name.count(".") + 1 + is_package):
        place = os.path.dirname(place)
    return _has_distributions(place)


@functools.cache
def _has_distributions(directory: str) -> bool:
    """Whether packages were installed into a directory, as by ``pip install --target``."""
    try:
        return any(name.endswith(".dist-info") for name in os.listdir(directory))
    except OSError:
        return False
