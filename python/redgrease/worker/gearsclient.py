"""The module that functions sent by the client ``gearsclient`` import, where that package is not installed.

The client pickles a chain of objects by their names, and adds its repository to the requirements of each function.
Neither a download nor the package is needed to run them.
"""

from redgrease.worker.runtime import atomic, execute, gearsConfigGet, hashtag, log

#: The classes of steps: the builder's method, and the attributes that are its arguments.
_STEPS = {
    "LocalGroupBy": ("localgroupby", ("extractor", "reducer")),
    "Accumulate": ("accumulate", ("accumulator",)),
    "Repartition": ("repartition", ("extractor",)),
    "Map": ("map", ("callback",)),
    "Foreach": ("foreach", ("callback",)),
    "FlatMap": ("flatmap", ("callback",)),
    "Filter": ("filter", ("callback",)),
    "CountBy": ("countby", ("callback",)),
    "Avg": ("avg", ("callback",)),
    "Count": ("count", ()),
    "Distinct": ("distinct", ()),
    "Aggregate": ("aggregate", ("zero", "seqOp", "combOp")),
    "AggregateBy": ("aggregateby", ("extractor", "zero", "seqOp", "combOp")),
    "Sort": ("sort", ("reverse",)),
    "Limit": ("limit", ("count", "offset")),
    "Run": ("run", ("arg", "convertToStr", "collect")),
    "Register": ("register", ("prefix", "convertToStr", "collect")),
}


class Step:
    """A step of a function; its attributes come from the pickle."""

    method = ""
    arguments: "tuple[str, ...]" = ()
    kargs: "dict[str, object]" = {}  # noqa: RUF012 - the client's name; never changed

    def apply(self, builder):
        """Apply the step to the server's builder."""
        positional = [getattr(self, name) for name in self.arguments]
        getattr(builder, self.method)(*positional, **self.kargs)


class GearsPipe:
    """A function: its reader and its steps, from the pickle."""

    reader = "KeysReader"
    steps: "list[Step]" = []  # noqa: RUF012 - never changed

    def createAndRun(self, GB):
        """Run or register the function; the client's script calls this."""
        builder = GB(self.reader)
        for step in self.steps:
            step.apply(builder)


#: The names of the client's modules.
NAMES: "dict[str, object]" = {
    "GearsPipe": GearsPipe,
    "atomic": atomic,
    "execute": execute,
    "gearsConfigGet": gearsConfigGet,
    "hashtag": hashtag,
    "log": log,
    **{
        f"GearsRemote{name}Step": type(name, (Step,), {"method": method, "arguments": arguments})
        for name, (method, arguments) in _STEPS.items()
    },
}
