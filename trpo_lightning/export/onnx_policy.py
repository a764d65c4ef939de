"""The deterministic policy as an ONNX graph: raw observations in, actions out as the environment takes them.

Observations enter as the vectors that the policy sees before its normalizer: those of the space, or, for spaces that
are no vectors, as `gymnasium.spaces.flatten` makes them; images enter as bytes. The normalizer is inside, and so are
the scaling of actions and the clipping to the space's bounds.
"""

import copy
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from trpo_lightning.environments.recorded_spaces import spaces_of
from trpo_lightning.environments.spaces import affine_door, to_env_action
from trpo_lightning.errors import UserError
from trpo_lightning.policies.tanh import Tanh
from trpo_lightning.training.trained_policy import TrainedPolicy

INPUT, OUTPUT = "observation", "action"
TOLERANCE = 1e-6
"""Largest error of an action, in units of the larger of 1 and its bounds: a few roundings of 32-bit numbers."""
CHECKED = 256
"""Observations that the graph is compared with the policy at."""


class DeterministicPolicy(nn.Module):
    """Observations `[B, O]` to actions `[B, ...]`: normalizer, network, mode, scaling, clipping, all in one module."""

    mean: Tensor
    inverse_std: Tensor
    offset: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    start: Tensor

    def __init__(self, trained: TrainedPolicy) -> None:
        super().__init__()
        normalizer = trained.normalizer
        observations, self._actions = spaces_of(trained.spec)
        self.layout = normalizer.layout
        self.dtype = torch.uint8 if self.layout.images else _input_dtype(observations)
        self._normalized, self._clip = (
            normalizer.settings.observations and not self.layout.images,
            normalizer.settings.observation_clip,
        )
        self.register_buffer("mean", normalizer.observations.mean.clone())
        self.register_buffer("inverse_std", 1.0 / normalizer.observations.std())
        self.policy = _traceable(trained.policy)
        if isinstance(self._actions, spaces.Box):
            arrays = affine_door(self._actions, scaled=trained.settings.env.scale_actions)
            for name, array in zip(("offset", "scale", "low", "high"), arrays, strict=True):
                self.register_buffer(name, torch.from_numpy(array))
        else:
            self.register_buffer("start", torch.from_numpy(np.asarray(getattr(self._actions, "start", 0))))

    def forward(self, observation: Tensor) -> Tensor:
        """Any batch size."""
        if self.layout.images:
            return self._at_the_door(self.policy(observation).mode())
        x = observation.double()
        if self._normalized:
            x = ((x - self.mean) * self.inverse_std).clamp(-self._clip, self._clip)
        return self._at_the_door(self.policy(x.float()).mode())

    def _at_the_door(self, action: Tensor) -> Tensor:
        space: Any = self._actions
        dtype = getattr(torch, str(space.dtype))
        if isinstance(space, spaces.Box):
            action = torch.minimum(torch.maximum(self.offset + self.scale * action.double(), self.low), self.high)
            return action.to(dtype).reshape(-1, *space.shape)
        if isinstance(space, spaces.Discrete):
            return (action[:, 0] + self.start).to(dtype)
        return (action.reshape(-1, *space.shape) + self.start).to(dtype)


def _input_dtype(space: spaces.Space) -> torch.dtype:
    """64 bits where observations have them: the normalizer subtracts a mean from them, which costs digits."""
    return torch.float64 if spaces.flatten_space(space).dtype == np.float64 else torch.float32


def _traceable(policy: nn.Module) -> nn.Module:
    """A copy on the CPU whose tanh is torch's own: the package's is NumPy's, which no tracer sees."""
    copied = copy.deepcopy(policy).cpu().eval()
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, Tanh):
                setattr(module, name, nn.Tanh())
    return copied


def write_onnx(trained: TrainedPolicy, file: Path) -> None:
    """Write the policy as ONNX, and compare it with the original.

    Raises:
        UserError: The policy is one of someone's own that cannot be traced, or the graph computes something else.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    layout = trained.normalizer.layout
    if layout.is_packed:
        raise UserError("policies that see several images, or images and vectors, cannot be written as ONNX")
    module = DeterministicPolicy(trained).eval()
    try:
        _trace(module, layout.row_shape, file)
    except Exception as error:  # of any type: tracing runs the policy's own code
        kind = type(trained.policy).__name__
        raise UserError(f"{kind} cannot be written as ONNX: {' '.join(str(error).split())[:200]}") from error
    onnx.checker.check_model(str(file))
    observations = _observations(trained, module.dtype)
    (found,) = ReferenceEvaluator(str(file)).run(None, {INPUT: observations})
    expected = _actions(trained, observations)
    error = np.abs(np.asarray(found, dtype=np.float64) - np.asarray(expected, dtype=np.float64)).max()
    if not error <= TOLERANCE * max(_scale(module), float(np.abs(expected).max())):
        raise UserError(f"{file}: the graph differs from the policy by {error:.1e}: this is a bug, please report it")


@torch.inference_mode()
def _actions(trained: TrainedPolicy, observations: np.ndarray) -> np.ndarray:
    """What `TrainedPolicy.act` gives for vectors, whatever the space."""
    device = next(trained.policy.parameters()).device
    seen = torch.from_numpy(trained.normalizer.normalize(observations)).to(device)
    action_space = spaces_of(trained.spec)[1]
    return to_env_action(action_space, scaled=trained.settings.env.scale_actions)(
        trained.policy(seen).mode().cpu().numpy()
    )


def _trace(module: DeterministicPolicy, shape: tuple[int, ...], file: Path) -> None:
    example = torch.zeros((2, *shape), dtype=module.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            module,
            (example,),
            str(file),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"observation": {0: torch.export.Dim("batch")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _observations(trained: TrainedPolicy, dtype: torch.dtype) -> np.ndarray:
    """Observations as the policy has seen them, and some far away."""
    moments, random = trained.normalizer.observations, np.random.default_rng(0)
    shape = (CHECKED, *trained.normalizer.layout.row_shape)
    if dtype == torch.uint8:
        return random.integers(0, 256, shape, dtype=np.uint8)
    drawn = moments.mean.numpy() + moments.std().numpy() * random.standard_normal(shape) * 3.0
    return drawn.astype(np.float64 if dtype == torch.float64 else np.float32)


def _scale(module: DeterministicPolicy) -> float:
    bounds = [buffer for name, buffer in module.named_buffers() if name in ("low", "high")]
    finite = [float(bound[torch.isfinite(bound)].abs().max()) for bound in bounds if torch.isfinite(bound).any()]
    return max([1.0, *finite])
