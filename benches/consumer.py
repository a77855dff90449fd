"""A consumer of a stream: `consumer.py PORT STREAM GROUP COUNTER COUNT`.

Reads a thousand messages at a time, and sends one INCR per message and the acknowledgement in one pipeline.
"""

from __future__ import annotations

import sys
from typing import Any

import redis

BATCH = 1000


def main() -> None:
    port, stream, group, counter, count = int(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
    client = redis.Redis(port=port)
    print("ready", flush=True)
    done = 0
    while done < count:
        batches: Any = client.xreadgroup(group, "consumer", {stream: ">"}, count=BATCH, block=1000)
        for _, messages in batches:
            pipeline = client.pipeline(transaction=False)
            for _ in messages:
                pipeline.incr(counter)
            pipeline.xack(stream, group, *(number for number, _ in messages))
            pipeline.execute()
            done += len(messages)


if __name__ == "__main__":
    main()
