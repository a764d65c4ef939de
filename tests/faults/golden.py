"""Hashes of short runs, keyed by all that may change their bits: `python tests/faults/golden.py` writes this machine's.

`golden_hashes.json` maps a key, such as `torch 2.13.0 ... cpu AVX512 ...`, to the hashes of `RUNS`.
"""

import importlib.metadata
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from trpo_lightning.runs.provenance import blas_environment

TESTS = Path(__file__).parents[1]
FILE = Path(__file__).with_name("golden_hashes.json")
PACKAGES = ("torch", "numpy", "mujoco", "gymnasium", "envpool")
HOPPER = """env.id=Hopper-v5 env.num_envs=4 env.max_episode_steps=40 rollout.steps_per_iteration=256
    policy.hidden_sizes=[16] policy.initial_log_std=0 value.hidden_sizes=[16] value.epochs=2
    rule.delta=0.02 rule.damping=0.1 rule.max_step_size=null rule.kl_over_dimensions=sum rule.kl_state_slack=null
    rule.fisher_fraction=0.2 rule.final_delta=null
    checkpoint.every=3 evaluation.every=0 tracking.wandb=disabled threads=1 total_iterations=3""".split()
"""Nothing that counts is left to the defaults, which may change."""
VINE = "rollout.scheme=vine value.name=none rollout.rollout_set_size=12 rollout.branches=3 rollout.branch_length=6"
CEM = "rule.name=cem rollout.scheme=population rule.population=6"
RUNS = {
    "gymnasium": ["env.backend=gymnasium"],
    "asynchronous gymnasium": ["env.backend=gymnasium", "env.asynchronous=true"],
    "envpool": ["env.backend=envpool"],
    "vine": ["env.backend=gymnasium", *VINE.split()],
    "cem gymnasium": ["env.backend=gymnasium", *CEM.split()],
    "cem envpool": ["env.backend=envpool", *CEM.split()],
    "cma_es envpool": ["env.backend=envpool", *CEM.replace("cem", "cma_es").split()],
}


def key() -> str:
    """Versions, and the kinds of CPU that torch, OpenBLAS and MKL choose their code by."""
    versions = [f"{name} {_version(name)}" for name in PACKAGES]
    cpus = [f"torch's cpu {torch.backends.cpu.get_cpu_capability()}", f"numpy's {_numpy_cpu()}", _cpu()]
    told = [f"{name}={value}" for name, value in blas_environment().items()]
    return ", ".join([*versions, *cpus, *told])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _numpy_cpu() -> str:
    """The widest instructions that NumPy found, which OpenBLAS chooses by as well."""
    features = np._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
    return "+".join(
        name for name in ("AVX2", "FMA3", "AVX512F", "AVX512_SKX", "AVX512_SPR", "ASIMD") if features.get(name)
    )


def _cpu() -> str:
    """Vendor and family: MKL and OpenBLAS have code of their own for each."""
    fields = {"vendor_id": "", "cpu family": ""}
    path = Path("/proc/cpuinfo")
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        name, _, value = line.partition(":")
        if name.strip() in fields:
            fields[name.strip()] = value.strip()
    return " ".join([platform.system(), platform.machine(), *filter(None, fields.values())])


def computed(name: str, folder: Path, *overrides: str) -> str:
    """The hash of what a run of `RUNS` learns."""
    from methods import on_top_of
    from small_runs import learned_hash, newest

    from trpo_lightning.runs.run import train_run

    settings = on_top_of(HOPPER, [*RUNS[name], *overrides])
    train_run(settings, folder, quiet=True)
    return learned_hash(newest(folder))


def recorded() -> dict[str, dict[str, str]]:
    return json.loads(FILE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.path[:0] = [str(TESTS), str(TESTS / "faults")]
    with tempfile.TemporaryDirectory() as folder:
        hashes = {name: computed(name, Path(folder) / name) for name in RUNS}
    everything = {**(recorded() if FILE.exists() else {}), key(): hashes}
    FILE.write_text(json.dumps(everything, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{FILE}: {len(hashes)} hashes for {key()}")
