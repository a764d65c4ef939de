"""`python -m trpo_lightning benchmark`: measure, print and store the results."""

import shlex
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from trpo_lightning.benchmark import report
from trpo_lightning.benchmark.bench import Bench
from trpo_lightning.benchmark.comparisons import peers, returns
from trpo_lightning.benchmark.configurations import ENVIRONMENTS, PEER_ENVIRONMENTS
from trpo_lightning.benchmark.growth import gpu, growth, reuse, update
from trpo_lightning.benchmark.parity import parity
from trpo_lightning.benchmark.pixels import pixels
from trpo_lightning.benchmark.ranks import ranks
from trpo_lightning.benchmark.results import Result
from trpo_lightning.benchmark.sections import ceiling, experiments, memory, profile, startup
from trpo_lightning.benchmark.time_to_return import time_to_return
from trpo_lightning.environments.backends import describe_environment
from trpo_lightning.errors import UserError, nearest
from trpo_lightning.runs.provenance import provenance, started_as
from trpo_lightning.settings import EnvSettings
from trpo_lightning.threads import available_cores

SECTIONS: dict[str, Callable[[Bench], list[Result]]] = {
    "ceiling": ceiling,
    "peers": peers,
    "parity": parity,
    "returns": returns,
    "time_to_return": time_to_return,
    "experiments": experiments,
    "ranks": ranks,
    "update": update,
    "growth": growth,
    "reuse": reuse,
    "pixels": pixels,
    "memory": memory,
    "startup": startup,
    "profile": profile,
    "gpu": gpu,
}


SLOW = ("returns", "time_to_return")
"""Sections that train to the end, hours in all: only when they are named."""


def run(options: Namespace) -> int:
    """Measure the chosen sections one by one and store each as soon as it is done.

    Returns the exit code, 1 if no section gave a number. Raises `UserError` for options that cannot work.
    """
    names, bench = chosen_sections(options.sections, options.returns), bench_of(options)
    kept = report.read(options.out)
    command = shlex.join(started_as(sys.argv))
    done: report.Sections = {}
    for name in names:
        began = time.perf_counter()
        print(f"{name}: {(SECTIONS[name].__doc__ or '').partition(chr(10))[0]}", flush=True)
        bench.notes, bench.versions = [], {}
        with tempfile.TemporaryDirectory(prefix="trpo_benchmark_", ignore_cleanup_errors=True) as folder:
            bench.folder = Path(folder)
            results = SECTIONS[name](bench)
        facts = {"seconds": round(time.perf_counter() - began), "command": command, "provenance": provenance()}
        done[name] = {**facts, "notes": bench.notes, "versions": bench.versions, "results": results}
        kept |= {name: done[name]}
        report.write({name: kept[name] for name in SECTIONS if name in kept}, options.out)
    print("\n".join(["", *report.console(done)]))
    measured = [result for section in done.values() for result in section["results"]]
    print(f"{report.summary(measured)}; everything is in {options.out}")
    return 0 if any(result.values for result in measured) else 1


def chosen_sections(text: str | None, with_returns: bool) -> list[str]:
    """The named sections in the order of `SECTIONS`, by default all but `SLOW`. Raises `UserError` for others."""
    named = [name for name in SECTIONS if name not in SLOW] if text is None else _items(text)
    for name in named:
        if name not in SECTIONS:
            hint = nearest(name, list(SECTIONS)) or f": there are {', '.join(SECTIONS)}"
            raise UserError(f"--sections {name} is not a section{hint}")
    if not named:
        raise UserError("--sections is empty")
    return [name for name in SECTIONS if name in named or (name == "returns" and with_returns)]


def bench_of(options: Namespace) -> Bench:
    """Turn the options into a `Bench`. Raises `UserError` for an impossible number or environment."""
    for name in ("repeats", "steps", "num_envs", "max_batch", "return_steps", "return_seeds"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)} is too small: it must be at least 1")
    environments = _items(options.env) if options.env else list(ENVIRONMENTS)
    for environment in environments:
        describe_environment(EnvSettings(id=environment))
    cores = available_cores()
    threads = sorted({1, min(2, cores)}) if options.threads is None else [_thread(t) for t in _items(options.threads)]
    if not environments or not threads:
        raise UserError("--env and --threads need at least one value")
    return Bench(
        environments=environments,
        peer_environments=environments if options.env else list(PEER_ENVIRONMENTS),
        threads=threads,
        num_envs=options.num_envs,
        steps=options.steps,
        repeats=options.repeats,
        max_batch=options.max_batch,
        return_steps=options.return_steps,
        return_seeds=options.return_seeds,
        peers=options.peers_venv,
        say=lambda line: print(line, flush=True),
    )


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _thread(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"--threads {text} is not a number of threads")
    return int(text)
