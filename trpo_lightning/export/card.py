"""README.md of an exported policy: a model card, as hubs for models show it."""

import importlib.metadata
from typing import Any

import yaml

from trpo_lightning.environments.recorded_spaces import spaces_of
from trpo_lightning.environments.user_code import names_code
from trpo_lightning.export.summary import RunSummary
from trpo_lightning.training.trained_policy import TrainedPolicy

CARD, CURVE, ONNX = "README.md", "learning_curve.png", "policy.onnx"
REWARD = "mean_reward"
"""The metric's name where hubs compare agents."""


def model_card(trained: TrainedPolicy, facts: RunSummary, name: str, files: dict[str, str]) -> str:
    """The card.

    Args:
        trained: The policy.
        facts: What its run says about it.
        name: The folder's, or the repository's, as `load` is to get it.
        files: What else is in the folder, with a meaning for each.

    Returns:
        Markdown with a header in YAML.
    """
    header = yaml.safe_dump(_header(trained, facts), sort_keys=False, allow_unicode=True)
    curve = [f"![Return over env steps]({CURVE})"] if CURVE in files else []
    parts = [
        f"---\n{header}---",
        f"# {_title(trained)}",
        _summary(trained),
        *curve,
        "## Scores",
        _scores(facts),
        "## Use",
        _use(trained, name, ONNX in files),
        "## Reproduce",
        _reproduce(facts),
        "## Files",
        _table(("file", "content"), [(f"`{file}`", meaning) for file, meaning in files.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def _title(trained: TrainedPolicy) -> str:
    return f"{trained.settings.rule.name} on {trained.settings.env.id}"


def _header(trained: TrainedPolicy, facts: RunSummary) -> dict[str, Any]:
    env_id = trained.settings.env.id
    header: dict[str, Any] = {
        "library_name": "trpo_lightning",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["reinforcement-learning", "deep-reinforcement-learning", "trpo", env_id],
    }
    score = facts.scores.get("deterministic")
    if score is not None:
        result = {
            "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
            "dataset": {"name": env_id, "type": env_id},
            "metrics": [{"type": REWARD, "value": score.text, "name": REWARD, "verified": False}],
        }
        header["model-index"] = [{"name": _title(trained), "results": [result]}]
    return header


def _summary(trained: TrainedPolicy) -> str:
    observations, actions = spaces_of(trained.spec)
    settings = trained.settings
    return (
        f"A policy for `{settings.env.id}` after {trained.env_steps:,} env steps ({trained.iteration:,} iterations), "
        f"seed {settings.seed}, by the update rule `{settings.rule.name}` of trpo_lightning. "
        f"Observations: `{_line(observations)}`. Actions: `{_line(actions)}`."
    )


def _line(space: Any) -> str:
    return " ".join(str(space).split())


def _scores(facts: RunSummary) -> str:
    if not facts.scores:
        return "It was not evaluated: `python -m trpo_lightning evaluate RUN_DIR` before `export` puts the scores here."
    rows = [(kind, score.text, score.source) for kind, score in facts.scores.items()]
    return _table(("policy", "return", "from"), rows)


def _use(trained: TrainedPolicy, name: str, with_onnx: bool) -> str:
    env = trained.settings.env
    make = f"env = policy.make_env({'own_code=True' if names_code(env) else ''})  # {env.id}, as in training"
    act = "action = policy.act(observation)"
    if trained.policy.state_size:
        act = "session = policy.session()  # it remembers the episode: session.reset() when the next one begins\n"
        act += "action = session.act(observation)"
    text = f"""```python
from trpo_lightning import load

policy = load("{name}")  # this folder
{make}
observation, _ = env.reset(seed=0)
{act}
```"""
    if with_onnx:
        text += f"""

Without this package, from `{ONNX}`: raw observations go in, flattened to `[B, O]`, and actions come out as `step` takes
them; the normalizer, the scaling and the bounds of actions are inside.

```python
import onnxruntime

session = onnxruntime.InferenceSession("{ONNX}")
(actions,) = session.run(None, {{"observation": observations}})
```"""
    return text


def _reproduce(facts: RunSummary) -> str:
    git = facts.provenance.get("git") or {}
    commit = git.get("commit")
    packages = facts.provenance.get("packages") or {}
    made = [f"trpo_lightning {facts.provenance.get('trpo_lightning') or importlib.metadata.version('trpo_lightning')}"]
    made += [f"commit {commit}" + (" with uncommitted changes" if git.get("diff_sha256") else "")] if commit else []
    made += [f"{name} {version}" for name, version in packages.items() if version]
    return (
        "```console\n$ python -m trpo_lightning train --config config.yaml\n```\n\n"
        f"Made with {', '.join(made)}. The same versions, number of threads and kind of processor give the same bits."
    )


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
