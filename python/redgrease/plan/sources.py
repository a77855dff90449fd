"""Functions that make records in a worker, for what the server does not read by itself."""

from redgrease import _native


def generated_keys(generator, count):
    """Make the reader of key names whose pattern comes from a function; ``count`` is a hint for each SCAN."""

    def keys():
        chosen, exact = generator()
        if exact:
            try:
                if _native.execute("exists", chosen) == 1:
                    yield chosen
            except _native.GearsError:
                # The key belongs to another shard.
                return
            return
        cursor = "0"
        while True:
            cursor, names = _native.execute("scan", cursor, "match", chosen, "count", str(count))
            yield from names
            if cursor in ("0", 0):
                return

    return keys


def refused_count(count):
    """Make the reader of key names for a ``count`` that is no number: the server's error is that of the execution."""

    def keys():
        _native.execute("scan", "0", "count", str(count))
        return iter(())

    return keys


def shard_id():
    """Make the one record of the reader of shard ids."""
    try:
        yield _native.execute("cluster", "myid")
    except _native.GearsError:
        yield "1"
