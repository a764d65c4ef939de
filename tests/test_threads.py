"""Who may use how many cores."""

import os
import threading

import pytest
import torch
from threadpoolctl import ThreadpoolController

from trpo_lightning import threads
from trpo_lightning.threads import cpu_quota, torch_threads


@pytest.fixture
def openblas():
    """NumPy's OpenBLAS on two threads."""
    found = ThreadpoolController().select(internal_api="openblas").lib_controllers
    if not found:
        pytest.skip("NumPy has another BLAS")
    numpys = next((one for one in found if "numpy" in one.filepath), found[0])  # OpenCV brings one of its own
    before = numpys.num_threads
    numpys.set_num_threads(2)
    yield numpys
    numpys.set_num_threads(before)


def test_torch_gets_what_it_is_given_and_numpy_one(openblas):
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        assert openblas.num_threads == 1
        with pytest.raises(ZeroDivisionError), torch_threads(1):
            assert torch.get_num_threads() == 1
            1 / 0  # noqa: B018
        assert torch.get_num_threads() == before + 1
        assert openblas.num_threads == 1
    assert torch.get_num_threads() == before
    assert openblas.num_threads == 2


def test_numpy_has_one_until_the_last_has_left(openblas):
    inside, go = threading.Event(), threading.Event()
    seen = []

    def beside():
        with torch_threads(1):
            inside.set()
            go.wait(10)
            seen.append(openblas.num_threads)

    thread = threading.Thread(target=beside)
    with torch_threads(1):
        thread.start()
        assert inside.wait(10)
    go.set()
    thread.join()
    assert seen == [1]
    assert openblas.num_threads == 2


# Shares of cores.


def cgroup(tmp_path, lines: str, **files: str):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(lines)
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("lines", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a\n", {}, None),
        (
            "3:cpu,cpuacct:/d\n",
            {"cpu,cpuacct/d/cpu.cfs_quota_us": "50000", "cpu,cpuacct/d/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        ("3:cpu:/d\n", {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:cpuset:/\nnonsense\n", {"cpu.max": "100000 100000"}, None),
        ("0::/\n", {"cpu.max": "what\n"}, None),
    ],
)
def test_a_containers_share_of_the_cores_is_its_quota(tmp_path, lines, files, cores):
    assert cpu_quota(cgroup(tmp_path, lines, **files)) == cores


def test_where_there_are_no_control_groups_there_is_no_quota(tmp_path):
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("affinity", "quota", "task", "cores"),
    [(8, None, None, 8), (8, 2.5, None, 2), (8, 0.5, None, 1), (8, 4.0, "3", 3), (2, 4.0, "3", 2), (8, None, "x", 8)],
)
def test_a_process_may_use_the_least_of_what_it_is_given(monkeypatch, affinity, quota, task, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    if task is not None:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", task)
    assert threads.available_cores() == cores
