"""Scripts whose records come from the first shard of a cluster: they have the same results as on one server.

Every shard runs the generator of a `PythonReader`, and gets the arguments of a trigger of mode `async`. Most tests are
about what happens to these records afterwards. So scripts are sent with a `GearsBuilder` with which the other shards
make no records; a `ShardsIDReader` gives what it gives on one server. Keys and streams are read where they are.
"""

from __future__ import annotations

import ast

#: Runs before a script, in its namespace. ``HOME`` is the hash tag of the first shard.
PRELUDE = """
class GearsBuilder(GearsBuilder):
    def __init__(self, *args, **options):
        if args == ("ShardsIDReader",) and not options:
            args = ("PythonReader", lambda: iter(["1"]))
        self._reader_name = args[0] if args else options.get("reader")
        if len(args) > 1:
            args = (args[0], self._at_home(args[1]), *args[2:])
        if "defaultArg" in options:
            options["defaultArg"] = self._at_home(options["defaultArg"])
        super().__init__(*args, **options)
        self._only_home = {"": False}
        if self._reader_name == "CommandReader":
            self.filter(lambda record, only=self._only_home, home=HOME: not only[""] or hashtag() == home)
    def _at_home(self, generator):
        import inspect
        plain = inspect.isfunction(generator) and not (
            inspect.iscoroutinefunction(generator) or inspect.isasyncgenfunction(generator))
        if self._reader_name != "PythonReader" or not plain:
            return generator
        return lambda home=HOME: generator() if hashtag() == home else iter(())
    def run(self, arg=None, *args, **options):
        return super().run(self._at_home(arg), *args, **options)
    def register(self, *args, **options):
        self._only_home[""] = "hook" not in options and options.get("mode", "async") == "async"
        return super().register(*args, **options)
GB = GearsBuilder
"""


def on_first_shard(script: object, home: str) -> object:
    """The script with the prelude, if it needs it. Its lines keep their numbers where that is possible."""
    text = script.decode("utf-8", "surrogateescape") if isinstance(script, bytes) else script
    if not isinstance(text, str) or not any(f"{reader}Reader" in text for reader in ("Python", "Command", "ShardsID")):
        return script
    prelude = f"exec({PRELUDE.replace('HOME', repr(home))!r}, globals())"
    for separator in ("; ", "\n"):
        candidate = prelude + separator + text
        if _is_python(candidate):
            return candidate.encode("utf-8", "surrogateescape") if isinstance(script, bytes) else candidate
    return script


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True
