"""The ONNX graph computes what `act` computes, for every kind of space, in another runtime."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from environments import ACTION_SPACES, OBSERVATION_SPACES, VECTOR, OneStep
from gymnasium import spaces

from trpo_lightning import TRPO, UserError
from trpo_lightning.environments.spaces import flatten_batch
from trpo_lightning.export.onnx_policy import write_onnx
from trpo_lightning.training.trained_policy import TrainedPolicy

onnxruntime = pytest.importorskip("onnxruntime")

SMALL = dict(num_envs=2, steps_per_iteration=8, value={"hidden_sizes": [4]}, threads=1)
BOUNDED = spaces.Box(np.array([-2.0, 0.0, -np.inf], np.float32), np.array([5.0, 0.1, 3.0], np.float32))


def selected(names: Iterable[str], *fast: str) -> list:
    """A few spaces for every test run: each graph takes two seconds or three."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


def trained_on(observations: spaces.Space, actions: spaces.Space, **more) -> TrainedPolicy:
    """A policy whose actions differ from one observation to the next, with a normalizer that has seen some."""
    module = TRPO(lambda: OneStep(observations, actions), **{**SMALL, "policy": {"hidden_sizes": [8, 8]}, **more})
    generator = torch.Generator().manual_seed(0)
    for parameter in module.policy.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    rows = flatten_batch(observations, samples(observations, 50))
    module.normalizer.merge(rows.astype(np.float64), np.arange(50.0))
    return module.trained_policy()


def samples(space: spaces.Space, count: int):
    """A batch as a vector environment returns it."""
    from gymnasium.vector.utils import batch_space

    batched = batch_space(space, count)
    batched.seed(1)
    return batched.sample()


def session(trained: TrainedPolicy, file: Path):
    write_onnx(trained, file)
    return onnxruntime.InferenceSession(str(file))


def compare(trained: TrainedPolicy, space: spaces.Space, running, count: int) -> np.ndarray:
    batch = samples(space, count)
    kind = {"tensor(double)": np.float64, "tensor(float)": np.float32}[running.get_inputs()[0].type]
    (found,) = running.run(None, {"observation": flatten_batch(space, batch).astype(kind)})
    expected = trained.act(batch)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    bounds = [np.asarray(getattr(trained.spec.spaces[1], name, 0)) for name in ("low", "high")]
    sizes = [float(np.abs(b[np.isfinite(b)]).max(initial=0.0)) for b in bounds]
    scale = max(1.0, float(np.abs(expected).max()), *sizes)
    assert np.abs(found.astype(np.float64) - expected).max() <= 2e-6 * scale
    return expected


@pytest.mark.parametrize("name", selected(ACTION_SPACES, "box_2d", "discrete_start", "multi_binary_2d"))
def test_actions_of_every_space(tmp_path: Path, name: str) -> None:
    trained = trained_on(VECTOR, ACTION_SPACES[name])
    running = session(trained, tmp_path / "policy.onnx")
    compare(trained, VECTOR, running, 1)
    actions = compare(trained, VECTOR, running, 64)
    assert len(np.unique(actions, axis=0)) > 1


@pytest.mark.parametrize("scaled", [pytest.param(True, marks=pytest.mark.slow), False])
def test_scaling_and_clipping_are_inside(tmp_path: Path, scaled: bool) -> None:
    trained = trained_on(VECTOR, BOUNDED, env={"scale_actions": scaled})
    trained.policy.network[-1].weight.data *= 5.0  # type: ignore[index,union-attr]
    actions = compare(trained, VECTOR, session(trained, tmp_path / "policy.onnx"), 64)
    assert (actions[:, 0] == 5.0).any() and (actions[:, 1] == 0.0).any() and (actions[:, 2] <= 3.0).all()


@pytest.mark.parametrize("name", selected(OBSERVATION_SPACES, "dict"))
def test_observations_of_every_space_enter_flattened(tmp_path: Path, name: str) -> None:
    space = OBSERVATION_SPACES[name]
    trained = trained_on(space, ACTION_SPACES["discrete"])
    compare(trained, space, session(trained, tmp_path / "policy.onnx"), 32)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"normalize": {"observations": False}}, {"normalize": {"observation_clip": 0.1}}])
def test_the_normalizer_is_inside(tmp_path: Path, change: dict) -> None:
    trained = trained_on(VECTOR, BOUNDED, **change)
    plain = trained_on(VECTOR, BOUNDED)
    expected = compare(trained, VECTOR, session(trained, tmp_path / "policy.onnx"), 32)
    assert (expected != plain.act(samples(VECTOR, 32))).any()


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_other_activations(tmp_path: Path, activation: str) -> None:
    trained = trained_on(VECTOR, BOUNDED, policy={"hidden_sizes": [8], "activation": activation})
    compare(trained, VECTOR, session(trained, tmp_path / "policy.onnx"), 32)


def test_a_large_mean_costs_no_digits_where_observations_have_64_bits(tmp_path: Path) -> None:
    space = spaces.Box(1e6 - 1.0, 1e6 + 1.0, (3,), np.float64)
    trained = trained_on(space, BOUNDED)
    compare(trained, space, session(trained, tmp_path / "policy.onnx"), 64)


def test_a_policy_that_no_graph_can_hold_is_a_line(tmp_path: Path) -> None:
    trained = trained_on(VECTOR, BOUNDED)
    trained.policy.network = Pythons(trained.policy.network)
    with pytest.raises(UserError, match=r"cannot be written as ONNX|differs from the policy") as error:
        write_onnx(trained, tmp_path / "policy.onnx")
    assert "\n" not in str(error.value)


class Pythons(torch.nn.Module):
    """Leaves torch in the middle."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = self.network(x)
        return torch.tensor([math.sin(value) for value in outputs.flatten().tolist()]).reshape(outputs.shape)


def test_a_policy_that_sees_images_takes_bytes(tmp_path):
    network = {"image_network": "sizes", "convolutions": ["4x4/4"], "hidden_sizes": [6]}
    env = {"id": "image_environments:Light", "num_envs": 2}
    trained = TRPO(env=env, policy=network, value={"name": "none"}, gae_lambda=1.0).trained_policy()
    write_onnx(trained, tmp_path / "policy.onnx")
    mixed = TRPO(env={**env, "kwargs": {"form": "mixture"}}, policy=network, value={"name": "none"}).trained_policy()
    with pytest.raises(UserError, match="several images, or images and vectors, cannot be written as ONNX"):
        write_onnx(mixed, tmp_path / "mixed.onnx")
