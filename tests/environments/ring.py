"""Every environment that can be built here: trained, evaluated, saved, loaded, acted with, killed and resumed.

`python tests/environments/ring.py [MODULE ...] [--only PATTERN] [--write]` goes through gymnasium's registry and what
the modules register, one process, seconds each, and prints a table; `--write` puts it into `docs/environments.md`.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import re
import sys
import tempfile
import warnings
from collections import Counter
from datetime import date
from pathlib import Path

import gymnasium as gym

from trpo_lightning import UserError, load
from trpo_lightning.environments.gymnasium_backend import make_one
from trpo_lightning.runs.config import load_settings
from trpo_lightning.runs.evaluate import evaluate_run
from trpo_lightning.runs.run import train_run

DOCS = Path(__file__).parents[2] / "docs" / "environments.md"
BEGIN, END = "<!-- ring: begin -->", "<!-- ring: end -->"
SMALL = """env.num_envs=2 rollout.steps_per_iteration=64 policy.hidden_sizes=[8] value.hidden_sizes=[8] value.epochs=1
    checkpoint.every=2 evaluation.every=4 evaluation.episodes=2 tracking.wandb=disabled threads=1
    env.max_episode_steps=60 env.timeout=60""".split()
"""64 steps an iteration, 8 iterations: 512 steps, a barrier and an evaluation on the way."""


def tried(env_id: str, more: list[str], folder: Path) -> str:
    """`works`, or the one line that refuses it; any other exception is a failure of ours."""
    arguments = [f"env.id={env_id}", *SMALL, *more]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            train_run(load_settings([*arguments, "total_iterations=4"]), folder, quiet=True)
            train_run(load_settings([*arguments, "total_iterations=8"]), folder, resume=True, quiet=True)
            evaluate_run(folder, "last", 2, 0, False)
        policy = load(folder)
        env = make_one(policy.settings.env)
        observation, _ = env.reset(seed=0)
        for deterministic in (True, False):
            action = policy.act(observation, deterministic=deterministic)
            assert env.action_space.contains(action), f"{action!r} is not in {env.action_space}"
            observation = env.step(action)[0]
        env.close()
    except UserError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return "works"


def candidates(modules: list[str]) -> list[tuple[str, str, list[str]]]:
    """Ids with what they come from and overrides: the newest version of each, one of many alike."""
    found: dict[str, tuple[str, str, list[str]]] = {}
    for spec in gym.registry.values():
        module = getattr(spec.entry_point, "__module__", None) or str(spec.entry_point).partition(":")[0]
        source = module.partition(".")[0]
        if source == "trpo_lightning" or source not in ("gymnasium", *modules):
            continue
        prefix = "" if source == "gymnasium" else f"{source}:"
        found[f"{source}/{spec.namespace}/{spec.name}"] = (prefix + spec.id, source, [])
    return list(found.values())


def table(rows: list[tuple[str, str, str]], modules: list[str]) -> str:
    names = ["gymnasium", "envpool", "mujoco", "numpy", "torch", *modules]
    versions = []
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name.replace('_', '-')} {importlib.metadata.version(name)}")
    counts = Counter((source, outcome.partition(":")[0]) for _, source, outcome in rows)
    lines = [f"Tried on {date.today().isoformat()} with {', '.join(versions)}, {len(rows)} environments.", ""]
    lines += ["| from | outcome | environments |", "|---|---|---:|"]
    lines += [f"| {source} | {outcome} | {count} |" for (source, outcome), count in sorted(counts.items())]
    kinds: dict[str, list[str]] = {}
    for env_id, _, outcome in rows:
        if outcome != "works":
            kinds.setdefault(re.sub(r"env\.id=\S+?:? ", "", outcome.replace(env_id, "ID")), []).append(env_id)
    lines += ["", "| what is said | of |", "|---|---|"]
    for said, ids in kinds.items():
        some = ", ".join(f"`{env_id}`" for env_id in ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
        lines.append(f"| {said.replace('|', '/')} | {some} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="that register environments, such as minigrid")
    parser.add_argument("--only", default="", metavar="PATTERN", help="ids that match a regular expression")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one of N ids that a module registers")
    parser.add_argument("--write", action="store_true", help=f"write the table into {DOCS.name}")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for module in options.modules:
        importlib.import_module(module)
    rows, seen = [], Counter()
    for env_id, source, more in candidates(options.modules):
        seen[source] += 1
        skipped = source != "gymnasium" and seen[source] % options.every
        if skipped or not re.search(options.only, env_id):
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome = tried(env_id, more, Path(folder) / "run")
        rows.append((env_id, source, outcome))
        print(f"{env_id:<50} {outcome}", flush=True)
    text = table(rows, options.modules)
    print(text)
    if options.write:
        before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
        DOCS.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    sys.exit(any(outcome.startswith("FAILED") for _, _, outcome in rows))


if __name__ == "__main__":
    main()
