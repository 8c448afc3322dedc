"""Append to a spool for ever and say what happens, ``acked <id>`` or ``refused <id>``. The tests run and kill it.

usage: writer.py FOLDER [records] [--no-sync]
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

from closedloop.log.spool import Spool, SpoolError


def payload(number):
    """What record ``number`` holds: it can be checked from its number alone."""
    return b"%d %s" % (number, b"x" * (number % 500))


async def append(spool, numbers):
    for number in numbers:
        try:
            await spool.append(payload(number))
        except SpoolError:
            print("refused", number, flush=True)
            await asyncio.sleep(0.01)
        else:
            print("acked", number, flush=True)


async def main(folder, records):
    spool = Spool(folder, segment_bytes=200_000, retry_seconds=0.05)
    numbers = iter(range(records)) if records else itertools.count()
    await asyncio.gather(*[append(spool, numbers) for _ in range(16)])
    await asyncio.to_thread(spool.close)


if __name__ == "__main__":
    if "--no-sync" in sys.argv:
        os.fdatasync = os.fsync = lambda _: None
    counts = [int(word) for word in sys.argv[2:] if word.isdigit()]
    asyncio.run(main(Path(sys.argv[1]), sum(counts)))
