"""A Ray cluster of several nodes on this machine, for a test; every process of it ends with the test."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # otherwise a busy machine starves them
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "10",
}


@contextmanager
def ray_cluster(*cpus: int, first_path: Path | None = None) -> Iterator[Any]:
    """A head without CPUs, and a node for each number of `cpus`, whose processes look for modules in `first_path`."""
    import ray
    from ray.cluster_utils import Cluster

    first = [str(first_path)] if first_path else []
    paths = os.pathsep.join([*first, str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    folder = tempfile.mkdtemp(prefix="ray")  # short: paths of sockets have at most 107 letters
    (Path(folder) / "ray").mkdir()
    os.environ.update({**VARIABLES, "PYTHONPATH": paths, "RAY_TMPDIR": folder, "TMPDIR": folder})
    try:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for number in cpus:
                cluster.add_node(num_cpus=number)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray's nodes install one of their own
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def node_without(folder: Path, address: str) -> Iterator[None]:
    """Another node of a cluster, which sees an empty folder where the others see `folder`."""
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}", "--num-cpus=1", "--block"]
    hide = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {folder} && exec "$@"', "sh"]
    with subprocess.Popen([*hide, *start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
        try:
            yield
        finally:
            node.terminate()
            node.wait(30)
