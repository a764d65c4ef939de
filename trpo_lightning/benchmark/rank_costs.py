"""Seconds of all-reduces between two processes of this machine, by size: `python -m ... --sizes 1,4096 --calls 100`.

Prints one line of JSON: seconds by number of float32 values, the median of the calls.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
import torch.distributed as dist

from trpo_lightning.ranks import DistributedRanks
from trpo_lightning.runs.ranks.launch import HERE, process_group


def main() -> None:
    """Measure as the first rank, which starts the second one, or take part as the second."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--port", type=int, default=0, help="of the first rank")
    options = parser.parse_args()
    torch.set_num_threads(1)
    first = options.port == 0
    store = dist.TCPStore(HERE, options.port, 2, is_master=first, wait_for_workers=False)  # pyright: ignore[reportPrivateImportUsage]
    again = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--port", str(store.port)]
    second = subprocess.Popen(again) if first else None
    with process_group("cpu", store=store, rank=0 if first else 1, world_size=2):
        found = {size: seconds(int(size), options.calls) for size in options.sizes.split(",")}
    if second is not None:
        second.wait()
        print(json.dumps(found))


def seconds(size: int, calls: int) -> float:
    """Median seconds of an all-reduce of `size` float32 values, after one that does not count."""
    ranks, x, found = DistributedRanks(2), torch.zeros(size), []
    for _ in range(calls + 1):
        began = time.perf_counter()
        ranks.sum_(x)
        found.append(time.perf_counter() - began)
    return statistics.median(found[1:])


if __name__ == "__main__":
    main()
