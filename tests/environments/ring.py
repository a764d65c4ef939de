"""Every environment that can be built here: trained, evaluated, saved, loaded, acted with, and resumed from a barrier.

`python tests/environments/ring.py [MODULE ...] [--only PATTERN] [--keep FILE] [--write]` goes through what gymnasium,
the packages of `PACKAGES` and `ring_tasks.py` offer, one process, seconds to minutes each, says which packages are not
installed, and prints a table; `--write` puts it into `docs/environments.md`.
"""

import argparse
import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import io
import json
import re
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import astuple, dataclass
from datetime import date
from pathlib import Path

import gymnasium as gym

from trpo_lightning import UserError, load
from trpo_lightning.environments.gymnasium_backend import make_one
from trpo_lightning.runs.config import load_settings
from trpo_lightning.runs.evaluate import evaluate_run
from trpo_lightning.runs.run import train_run

FOLDER = Path(__file__).parent
DOCS = FOLDER.parents[1] / "docs" / "environments.md"
BEGIN, END = "<!-- ring: begin -->", "<!-- ring: end -->"
SMALL = """env.num_envs=2 rollout.steps_per_iteration=250 policy.hidden_sizes=[8] value.hidden_sizes=[8] value.epochs=1
    checkpoint.every=2 evaluation.every=4 evaluation.episodes=2 tracking.wandb=disabled threads=1
    env.max_episode_steps=60 env.timeout=600""".split()
"""250 steps an iteration, 8 iterations: 2,000 steps, barriers and evaluations on the way."""
PACKAGES = {
    "gymnasium_robotics": ("gymnasium-robotics", 6),
    "minigrid": ("minigrid", 1),
    "shimmy": ("shimmy[dm-control]", 4),
    "metaworld": ("metaworld", 1),
    "highway_env": ("highway-env", 3),
    "pybullet_envs_gymnasium": ("pybullet-envs-gymnasium", 1),
    "panda_gym": ("panda-gym", 6),
    "PyFlyt.gym_envs": ("pyflyt", 1),
}
"""Modules that register environments: how they are installed, and one of how many is tried, where many are alike."""
NEEDED = {"Box2D": "gymnasium[box2d]", "jax": "gymnasium[jax]", "pettingzoo": "pettingzoo", "supersuit": "supersuit"}
"""Other packages that something here needs."""
WRAPPERS = {
    "minigrid": ["minigrid.wrappers:FlatObsWrapper"],
    "minigrid images": ["minigrid.wrappers:ImgObsWrapper", "gymnasium.wrappers:FlattenObservation"],
    "CarRacing-v3": ["gymnasium.wrappers:GrayscaleObservation", "gymnasium.wrappers:FlattenObservation"],
}
"""As people use them."""


@dataclass(frozen=True)
class Case:
    """An environment, what it comes from, and further settings."""

    env_id: str
    source: str
    more: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.env_id, *self.more])


def tried(case: Case, folder: Path) -> str:
    """`works`, or the one line that refuses it; any other exception is a failure of ours."""
    arguments = [f"env.id={case.env_id}", *SMALL, *case.more]
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


def registered(modules: list[str]) -> list[Case]:
    """The newest version of each id that gymnasium and the modules register."""
    modules_of = {module.partition(".")[0]: module for module in modules}
    found: dict[str, Case] = {}
    for spec in gym.registry.values():
        entry = spec.entry_point or spec.vector_entry_point
        entry = getattr(entry, "func", entry)  # of a partial
        source = (getattr(entry, "__module__", None) or str(entry)).partition(":")[0].partition(".")[0]
        if source != "gymnasium" and source not in modules_of:
            continue
        prefix = "" if source == "gymnasium" else f"{modules_of[source]}:"
        found[f"{source}/{spec.namespace}/{spec.name}"] = Case(prefix + spec.id, source)
    return list(found.values())


def with_settings(cases: list[Case], everything: bool) -> list[Case]:
    """One of many alike, with the arguments and wrappers without which nobody uses them."""
    seen, chosen = Counter(), []
    for case in cases:
        module = case.env_id.partition(":")[0]
        step = 1 if everything or module not in PACKAGES else PACKAGES[module][1]
        number, seen[case.source] = seen[case.source], seen[case.source] + 1
        if number % step:
            continue
        chosen.append(case)
        if case.env_id in WRAPPERS:
            chosen.append(_wrapped(case, case.env_id))
        if case.source == "minigrid":
            chosen[-1] = _wrapped(case, "minigrid")
            chosen += [] if number % 20 else [case, _wrapped(case, "minigrid images")]
        if case.env_id.endswith("Meta-World/MT1"):
            names = sorted(importlib.import_module("metaworld").ALL_V3_ENVIRONMENTS)
            more = [Case(case.env_id, case.source, (f"env.kwargs.env_name={name}",)) for name in names]
            chosen += more if everything else more[::10]
    return chosen


def _wrapped(case: Case, name: str) -> Case:
    return Case(case.env_id, case.source, (*case.more, f"env.wrappers=[{','.join(WRAPPERS[name])}]"))


def of_users() -> list[Case]:
    """What `ring_tasks.py` has: environments as people write and wrap them."""
    sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1] / "examples")]
    tasks = importlib.import_module("ring_tasks")
    return [Case(f"ring_tasks:{name}", "users' own") for name in tasks.TASKS] + [
        Case(f"ring_tasks:{name}", package)
        for name, package in tasks.OF_PACKAGES.items()
        if importlib.util.find_spec(package) is not None
    ]


@functools.cache
def missing() -> dict[str, str]:
    """Packages that are not here, with how they are installed."""
    wanted = {**{module: how for module, (how, _) in PACKAGES.items()}, **NEEDED}
    return {name: how for name, how in wanted.items() if importlib.util.find_spec(name.partition(".")[0]) is None}


def table(rows: list[tuple[Case, str]]) -> str:
    names = ["gymnasium", "envpool", "mujoco", "numpy", "torch", "dm_control", "pybullet", *NEEDED]
    versions = []
    for name in dict.fromkeys([*names, *(how.partition("[")[0] for how, _ in PACKAGES.values())]):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    counts = Counter((case.source, outcome.partition(":")[0]) for case, outcome in rows)
    lines = [f"Tried on {date.today().isoformat()} with {', '.join(versions)}: {len(rows)} environments.", ""]
    if missing():
        lines += [f"Not installed, and so not tried: {', '.join(f'`{how}`' for how in missing().values())}.", ""]
    lines += ["| from | outcome | environments |", "|---|---|---:|"]
    lines += [f"| {source} | {outcome} | {count} |" for (source, outcome), count in sorted(counts.items())]
    kinds: dict[str, list[Case]] = {}
    for case, outcome in rows:
        if outcome != "works":
            kinds.setdefault(_said(case, outcome), []).append(case)
    lines += ["", "| what is said | of |", "|---|---|"]
    for said, cases in kinds.items():
        some = ", ".join(f"`{case}`" for case in cases[:3]) + (f" and {len(cases) - 3} more" if len(cases) > 3 else "")
        lines.append(f"| {said.replace('|', '/')} | {some} |")
    return "\n".join(lines)


def _said(case: Case, outcome: str) -> str:
    """What is the same for all environments of a kind, and says nothing of this machine."""
    said = re.sub(r"env\.id=ID:? ", "", outcome.replace(case.env_id, "ID"))
    said = re.sub(r"environment \d+ \(seed \d+\) in the reset of episode \d+", "environment ... in the reset", said)
    said = re.sub(r"'/\S*/([^/]+\.png)'", "a picture", said)
    return re.sub(r"\(\d+ chars\)", "(... chars)", said)


def kept(file: Path | None) -> dict[Case, str]:
    """Outcomes that an earlier call has written down."""
    if file is None or not file.exists():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {Case(env_id, source, tuple(more)): outcome for env_id, source, more, outcome in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="that register environments (default: all known)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="ids that match a regular expression")
    parser.add_argument("--all", action="store_true", help="also where many are alike")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="of outcomes; what it has is not tried again")
    parser.add_argument("--kept", action="store_true", help="try nothing: the table of what --keep has")
    parser.add_argument("--write", action="store_true", help=f"write the table into {DOCS.name}")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    modules = options.modules or [module for module in PACKAGES if module not in missing()]
    for module in modules:
        importlib.import_module(module)
    cases = [*of_users(), *with_settings(registered(modules), options.all)]
    rows, before = [], kept(options.keep)
    for case in (case for case in cases if re.search(options.only, str(case))):
        outcome = before.get(case)
        if outcome is None and options.kept:
            continue
        if outcome is None:
            with tempfile.TemporaryDirectory() as folder:
                outcome = tried(case, Path(folder) / "run")
            if options.keep:
                with options.keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([*astuple(case), outcome]) + "\n")
        rows.append((case, outcome))
        print(f"{case!s:<60} {outcome}", flush=True)
    text = table(rows)
    print(text)
    if options.write:
        before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
        DOCS.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    sys.exit(any(outcome.startswith("FAILED") for _, outcome in rows))


if __name__ == "__main__":
    main()
