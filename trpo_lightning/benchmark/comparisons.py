"""This framework against other libraries: steps per second, and returns."""

import statistics
from collections.abc import Callable
from typing import Any

from trpo_lightning.benchmark import peer_environment
from trpo_lightning.benchmark.bench import RATE, Bench, threads_text
from trpo_lightning.benchmark.configurations import LIKE_SB3, LIKE_TIANSHOU, WARMUP
from trpo_lightning.benchmark.peer_environment import SB3, TIANSHOU, Peer
from trpo_lightning.benchmark.processes import MeasurementError, measure
from trpo_lightning.benchmark.results import Result, Target, ratio
from trpo_lightning.benchmark.training_runs import train

PEERS: tuple[tuple[Peer, dict[str, Any], Target], ...] = (
    (SB3, LIKE_SB3, Target(4.0)),
    (TIANSHOU, LIKE_TIANSHOU, Target(3.0)),
)


def peers(bench: Bench) -> list[Result]:
    """Steps per second of ours and of each other library, both with that library's settings."""
    threads, installed = max(bench.threads), _installed(bench)
    cells: dict[tuple[str, str], Callable[[], float]] = {}
    for environment in bench.peer_environments:
        for peer, like, _ in installed:
            ours = bench.settings(environment, like)
            cells[environment, f"ours, settings of {peer.name}"] = lambda s=ours: train(
                s, threads, bench.folder
            ).steps_per_second()
            cells[environment, peer.name] = lambda p=peer, s=ours: run_peer(bench, p, s)["steps_per_second"]
    rates = bench.rates(cells)
    results = []
    for environment in bench.peer_environments:
        subject = f"{environment}, {threads_text(threads)}"
        for peer, _, target in installed:
            names = (f"ours, settings of {peer.name}", peer.name)
            both = [rates[environment, name] for name in names]
            results += [Result(subject, name, RATE, r) for name, r in zip(names, both, strict=True)]
            results.append(ratio(subject, f"ours / {peer.name}", both[0], both[1], target))
    return results


def _installed(bench: Bench) -> list[tuple[Peer, dict[str, Any], Target]]:
    """The peers that are installed; a note names the others."""
    return [entry for entry in PEERS if is_there(bench, entry[0])]


def is_there(bench: Bench, peer: Peer) -> bool:
    """Whether a peer is available; installs it if necessary, and notes a failure."""
    try:
        bench.say(f"  {peer.name}: installed in {bench.peers}, or being installed (minutes, once)")
        peer_environment.install(peer, bench.peers)
    except MeasurementError as error:
        bench.note(f"{peer.name} is left out, it could not be installed: {error}")
        return False
    return True


def run_peer(bench: Bench, peer: Peer, settings: dict[str, Any], seed: int = 0, **more: Any) -> dict[str, Any]:
    """Run a peer for as many iterations as ours with these settings; `more` becomes options of its script."""
    threads, per_iteration = max(bench.threads), settings["rollout.steps_per_iteration"]
    options: dict[str, Any] = {
        "env": settings["env.id"],
        "num_envs": settings["env.num_envs"],
        "steps_per_iteration": per_iteration,
        "iterations": -(-settings["total_env_steps"] // per_iteration),
        "warmup": WARMUP,
        "seed": seed,
        "threads": threads,
        **more,
    }
    if peer is SB3:
        options["minibatch"] = settings["value.minibatch_size"]
    result = measure(peer_environment.command(peer, bench.peers, **options), threads, bench.folder)
    bench.versions[peer.name] = result["versions"]
    return result


def _return_of(result: dict[str, Any]) -> float:
    """A peer's mean return. Raises `MeasurementError` where no episode ended."""
    if result["return_mean"] is None:
        raise MeasurementError("no episode ended within so few steps: raise --return-steps")
    return result["return_mean"]


def returns(bench: Bench) -> list[Result]:
    """Mean raw return of the last 100 training episodes, one value per seed."""
    threads, installed = max(bench.threads), _installed(bench)
    results = []
    for environment in bench.peer_environments:
        for peer, like, _ in installed:
            keys = bench.settings(environment, like)
            keys["total_env_steps"] = bench.return_steps
            names = (f"return of ours, settings of {peer.name}", f"return of {peer.name}")
            seeds: dict[str, list[float]] = {name: [] for name in names}
            try:
                for seed in range(bench.return_seeds):
                    seeds[names[0]].append(train({**keys, "seed": seed}, threads, bench.folder).final_return())
                    seeds[names[1]].append(_return_of(run_peer(bench, peer, keys, seed)))
                    bench.say(f"  {environment}, seed {seed}: {seeds[names[0]][-1]:,.0f}, {seeds[names[1]][-1]:,.0f}")
            except MeasurementError as error:
                bench.note(f"returns on {environment} with {peer.name} were not measured: {error}")
                continue
            subject = f"{environment}, {bench.return_steps:,} steps, {bench.return_seeds} seeds"
            results += [Result(subject, name, "return", tuple(values)) for name, values in seeds.items()]
            quotient = statistics.fmean(seeds[names[0]]) / statistics.fmean(seeds[names[1]])
            results.append(Result(subject, f"mean return, ours / {peer.name}", "x", (quotient,), Target(1.0)))
    return results
