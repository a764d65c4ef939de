"""Two real ranks for tests: this process, and a second one that runs the same functions beside it.

`python rank_pair.py PORT` is the second one. Importing torch takes seconds, so that many tests share one pair.
"""

import importlib
import os
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from trpo_lightning.ranks import DistributedRanks
from trpo_lightning.runs.ranks import launch
from trpo_lightning.runs.ranks.launch import process_group

launch.SILENCE = timedelta(seconds=60)  # what hangs is an error soon


class RankPair:
    """`with RankPair() as pair:` starts the second rank; `pair(function, ...)` runs `function(ranks, ...)` on both."""

    def __enter__(self):
        torch.set_num_threads(1)
        store = dist.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
        path = os.pathsep.join(item or os.getcwd() for item in sys.path)
        self.said = tempfile.TemporaryFile()
        self.second = subprocess.Popen(
            [sys.executable, __file__, str(store.port)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            stdout=self.said,
            stderr=self.said,
        )
        self.group = process_group("cpu", store=store, rank=0, world_size=2)
        self.group.__enter__()
        self.ranks = DistributedRanks(2)
        return self

    def __call__(self, function, *arguments) -> list[Any]:
        """What the function returns on each rank; it stands at the top of a module of tests, found by name."""
        try:
            self.ranks.of_first((Path(sys.modules[function.__module__].__file__).stem, function.__name__, arguments))
            return self.ranks.objects(function(self.ranks, *arguments))
        except BaseException:
            self.second.kill()  # it waits for what does not come
            raise

    def __exit__(self, *_):
        if self.second.poll() is None:
            self.ranks.of_first(None)
        self.group.__exit__(None, None, None)
        code = self.second.wait(timeout=60)
        with self.said:
            self.said.seek(0)
            assert code == 0, self.said.read().decode()


def second_rank(port: int) -> None:
    torch.set_num_threads(1)
    with process_group("cpu", store=dist.TCPStore("127.0.0.1", port, 2, is_master=False), rank=1, world_size=2):
        ranks = DistributedRanks(2)
        task: Any = None
        while (task := ranks.of_first(task)) is not None:
            module, name, arguments = task
            ranks.objects(getattr(importlib.import_module(module), name)(ranks, *arguments))
    left = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]  # none where there is no /proc
    assert not any("gloo" in name for name in left), left


if __name__ == "__main__":
    second_rank(int(sys.argv[1]))
