"""Append to a spool and print each event: ``issued``, ``acked`` or ``refused``, and the record's number.

usage: writer.py FOLDER [--first N] [--records N] [--clients N] [--segment-bytes N] [--durability WORD]
                 [--strict SHADOW [--without SYNC ...] [--cut SYNC N]]

With --strict, SHADOW records what a disk that keeps no more than POSIX promises would hold (see strict.py).
"""

import argparse
import asyncio
import itertools
import sys
from pathlib import Path

from closedloop.log.spool import Spool, SpoolError


def payload(number):
    """The payload of record ``number``, which can be checked from the number alone."""
    return b"%d %s" % (number, b"x" * (number % 500))


def identify(found):
    """The number of a payload, which must be complete."""
    number = int(found.split()[0])
    assert found == payload(number)
    return number


async def append(spool, numbers):
    for number in numbers:
        print("issued", number, flush=True)
        try:
            await spool.append(payload(number))
        except SpoolError:
            print("refused", number, flush=True)
            await asyncio.sleep(0.01)
        else:
            print("acked", number, flush=True)


async def main(options):
    spool = Spool(
        options.folder, segment_bytes=options.segment_bytes, retry_seconds=0.05, durability=options.durability
    )
    numbers = itertools.count(options.first)
    if options.records:
        numbers = iter(range(options.first, options.first + options.records))
    await asyncio.gather(*[append(spool, numbers) for _ in range(options.clients)])
    await asyncio.to_thread(spool.close)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--records", type=int)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--segment-bytes", type=int, default=200_000)
    parser.add_argument("--strict", type=Path)
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--cut", nargs=2, default=["", "0"])
    parser.add_argument("--durability", default="fsync")
    given = parser.parse_args()
    if given.strict:
        sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH keeps it off
        import strict

        strict.install(given.folder.parent, given.strict, given.without, (given.cut[0], int(given.cut[1])))
    asyncio.run(main(given))
