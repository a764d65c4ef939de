"""Policies with a memory, batches of sequences for them, and the gates written out step by step."""

import torch
from dense_trust_region import ACTION_SIZES, KINDS, generator
from torch import Tensor

from trpo_lightning.policies.networks import assign_parameter_vector, parameter_vector
from trpo_lightning.policies.observations import Layout, Shape
from trpo_lightning.policies.policy import Policy, build_policy
from trpo_lightning.policies.recurrent import RecurrentNetwork
from trpo_lightning.policies.sequences import Sequences
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.settings import RecurrentPolicySettings

LENGTHS = (4, 1, 6, 4, 2, 6, 3)


def gru(x, h, w, u, b, c):
    """Cho et al. 2014 as torch has it: the reset gate multiplies the product of the state."""
    (wr, wz, wn), (ur, uz, un), (br, bz, bn), (cr, cz, cn) = (matrix.chunk(3) for matrix in (w, u, b, c))
    r = torch.sigmoid(wr @ x + br + ur @ h + cr)
    z = torch.sigmoid(wz @ x + bz + uz @ h + cz)
    n = torch.tanh(wn @ x + bn + r * (un @ h + cn))
    return (1.0 - z) * n + z * h


def lstm(x, state, w, u, b):
    """Hochreiter & Schmidhuber 1997, with forget gates; (output, cell) is the state."""
    h, c = state.chunk(2)
    i, f, g, o = (w @ x + u @ h + b).chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.cat([torch.sigmoid(o) * torch.tanh(c), c])


class SlowNetwork(RecurrentNetwork):
    """The same parameters, one sequence and one step after the other."""

    def run(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        cell, outputs, states = self.cell, [], []
        parts = sequences.observations.split(sequences.lengths.tolist())
        for rows, state in zip(parts, sequences.states, strict=True):
            for x in self.encoder(rows):
                weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih]
                if len(cell.weight_ih) == 3 * cell.size:
                    state = gru(x, state, *weights, cell.bias_hh)
                else:
                    state = lstm(x, state, *weights)
                outputs.append(state[: cell.size])
            states.append(state)
        found = self.head(torch.stack(outputs))
        return found if sequences.counted is None else found[sequences.counted], torch.stack(states)


def slow(policy: Policy) -> Policy:
    """The policy with its network written out; the parameters are shared."""
    network = policy.network
    copied = SlowNetwork(network.encoder, network.cell, network.head)
    other = object.__new__(type(policy))
    other.__dict__.update(
        {name: dict(value) if isinstance(value, dict) else value for name, value in vars(policy).items()}
    )
    other.network = copied
    return other


def recurrent_policy(
    name: str, kind: str = "categorical", sizes: tuple[int, ...] = (4, 3), shape: Shape = (3,), **images
) -> Policy:
    settings = RecurrentPolicySettings(name=name, hidden_sizes=list(sizes), initial_log_std=-0.4, **images)
    return build_policy(shape, KINDS[kind], settings, generator())


def sequences(policy: Policy, lengths=LENGTHS, *, counted=None, dtype=torch.float64, shape: Shape = (3,)) -> Sequences:
    source, layout = generator(2), Layout.of(shape)
    if layout.images:
        pictures = [torch.randint(0, 256, (sum(lengths), *image.shape), generator=source) for image in layout.images]
        beside = torch.randn(sum(lengths), layout.vector, generator=source)
        packed = layout.pack([picture.to(torch.uint8).numpy() for picture in pictures], beside.numpy())
        observations = torch.from_numpy(packed)
    else:
        observations = torch.randn(sum(lengths), *shape, dtype=dtype, generator=source)
    states = torch.randn(len(lengths), policy.state_size, dtype=dtype, generator=source)
    rows = None if counted is None else torch.tensor(counted)
    return Sequences(observations, torch.tensor(lengths), states, rows)


SMALL_IMAGES = {"image_network": "sizes", "convolutions": ["3x4/2", "2x2/1"]}


def recurrent_problem(
    name: str, kind: str, *, sizes: tuple[int, ...] = (3,), lengths=LENGTHS, shape: Shape = (3,)
) -> tuple[Policy, Batch]:
    """A policy away from its start, in float64, and a batch of its own actions with random advantages."""
    images = SMALL_IMAGES if Layout.of(shape).images else {}
    policy, source = recurrent_policy(name, kind, sizes, shape, **images).double(), generator(1)
    theta = parameter_vector(policy)
    assign_parameter_vector(policy, 0.7 * torch.randn(theta.shape, dtype=theta.dtype, generator=source))
    observed = sequences(policy, lengths, shape=shape)
    noise = torch.rand(len(observed), ACTION_SIZES[kind], dtype=torch.float64, generator=source)
    with torch.no_grad():
        actions = policy(observed).sample(noise)
    return policy, Batch(observed, actions, torch.randn(len(observed), dtype=torch.float64, generator=source))
