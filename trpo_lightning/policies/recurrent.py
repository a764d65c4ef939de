"""Networks with a memory (GRU, LSTM), and the policies made from them."""

from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn

from trpo_lightning.errors import UserError
from trpo_lightning.policies.images import ImageNetwork, Sizes, network_sizes, rows_at_once
from trpo_lightning.policies.networks import hidden_layers, linear
from trpo_lightning.policies.observations import Layout, ObservationRows, Shape
from trpo_lightning.policies.policy import OUTPUT_GAIN, NetworkPolicy
from trpo_lightning.policies.sequences import Sequences
from trpo_lightning.settings import MLPPolicySettings, RecurrentPolicySettings

KEPT_AT_FIRST = 1.0
"""Initial bias of the gates that keep the state: without it, what was seen 20 steps ago is hardly learned from."""


class Cell(nn.Module):
    """Base of recurrent layers: from inputs `[T, S, I]` and a state `[S, M]` to outputs `[T, S, H]` and a state.

    The state of an episode's beginning is zero. A layer of one's own is a subclass that defines `forward`,
    differentiable twice; it needs no loop where a fused kernel of torch's does the work.
    """

    def __init__(self, inputs: int, size: int, generator: torch.Generator, *, gates: int, state_size: int) -> None:
        super().__init__()
        self.inputs, self.size, self.state_size = inputs, size, state_size
        self.weight_ih = nn.Parameter(_stacked(gates, size, inputs, generator))
        self.weight_hh = nn.Parameter(_stacked(gates, size, size, generator))
        self.bias_ih = nn.Parameter(torch.zeros(gates * size))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run over `x` `[T, S, I]` from `state` `[S, M]`."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")


class GRU(Cell):
    """Gated recurrent units (Cho et al. 2014), with torch's kernel; the state is the output.

    The update gates' biases, which keep the state, are 1 at first, as an LSTM's forget gates'.
    """

    def __init__(self, inputs: int, size: int, generator: torch.Generator) -> None:
        super().__init__(inputs, size, generator, gates=3, state_size=size)
        self.bias_hh = nn.Parameter(torch.zeros(3 * size))
        with torch.no_grad():
            self.bias_ih[size : 2 * size] = KEPT_AT_FIRST

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As `Cell.forward`."""
        weights: list[Tensor] = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        with _differentiable_twice(x):
            y, last = torch.gru(x, state[None], weights, True, 1, 0.0, self.training, False, False)
        return y, last[0]


class LSTM(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), with torch's kernel; the state is (output, cell).

    The forget gates' biases are 1 at first (Gers et al. 2000). There is one bias per gate: torch's second one is zero.
    """

    def __init__(self, inputs: int, size: int, generator: torch.Generator) -> None:
        super().__init__(inputs, size, generator, gates=4, state_size=2 * size)
        with torch.no_grad():
            self.bias_ih[size : 2 * size] = KEPT_AT_FIRST

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As `Cell.forward`."""
        weights = [self.weight_ih, self.weight_hh, self.bias_ih, torch.zeros_like(self.bias_ih)]
        initial = [part.contiguous()[None] for part in state.split(self.size, dim=1)]
        with _differentiable_twice(x):
            y, h, c = torch.lstm(x, initial, weights, True, 1, 0.0, self.training, False, False)
        return y, torch.cat([h[0], c[0]], dim=1)


def _differentiable_twice(x: Tensor) -> AbstractContextManager[None]:
    """Without cuDNN, whose recurrent layers have no second derivative, which Fisher-vector products take."""
    return torch.backends.cudnn.flags(enabled=False) if x.is_cuda else nullcontext()


def _stacked(gates: int, size: int, inputs: int, generator: torch.Generator) -> Tensor:
    """Weights `[gates * size, inputs]`: an orthogonal matrix for each gate."""
    parts = torch.empty(gates, size, inputs)
    for part in parts:
        nn.init.orthogonal_(part, generator=generator)
    return parts.flatten(0, 1)


class RecurrentNetwork(nn.Module):
    """`encoder` of single observations, a `cell` over time, and a `head`: sequences to outputs `[B, M]`."""

    def __init__(self, encoder: ImageNetwork | nn.Sequential, cell: Cell, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.cell, self.head = encoder, cell, head

    @property
    def state_size(self) -> int:
        """How many numbers the memory of one environment has."""
        return self.cell.state_size

    def forward(self, sequences: Sequences) -> Tensor:
        """Outputs `[B, M]` for the B rows that count."""
        return self.run(sequences)[0]

    def run(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Outputs `[B, M]`, and the states `[S, state_size]` after the last row of each sequence."""
        if not isinstance(sequences, Sequences):
            raise UserError(
                "a policy or value function with a memory needs sequences, not single rows: a sampling scheme of one's "
                "own records its states (SinglePathRollout.states)"
            )
        packing = sequences.packing
        x = self.encoded(sequences.observations.index_select(0, packing.order))
        state = sequences.states.index_select(0, packing.ranks)
        outputs: list[Tensor] = []
        ended: list[Tensor] = []
        sizes = [steps * count for steps, count in packing.rectangles]
        for part, (steps, count) in zip(x.split(sizes), packing.rectangles, strict=True):
            if count < len(state):
                ended.append(state[count:])
                state = state[:count]
            y, state = self.cell(part.view(steps, count, -1), state)
            outputs.append(y.flatten(0, 1))
        rows = packing.inverse
        if sequences.counted is not None:
            rows = rows[sequences.counted.to(rows.device)]
        last = torch.cat([state, *reversed(ended)])
        states = torch.empty_like(last).index_copy(0, packing.ranks, last)
        return self.head(torch.cat(outputs).index_select(0, rows)), states

    def encoded(self, rows: ObservationRows) -> Tensor:
        """What the cell sees `[B, I]` of observations `[B, *O]`: of images, a few at a time."""
        parts = [self.encoder(part) for part in rows.split(rows_at_once(self.encoder, max(1, len(rows))))]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def step(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs `[N, M]` and the next states, for one observation `[N, *O]` in each of N states."""
        return self.moved(self.encoder(observations), state)

    def moved(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs `[N, M]` and the next states, for what the cell sees `[N, I]` of one observation each."""
        y, state = self.cell(x[None], state)
        return self.head(y[0]), state


def build_recurrent_network(
    observation_shape: Shape,
    outputs: int,
    *,
    cell: type[Cell],
    sizes: Sizes,
    activation: str,
    output_gain: float,
    generator: torch.Generator,
) -> RecurrentNetwork:
    """A network whose last hidden layer is recurrent; arguments as for `build_network`, which makes the others.

    Of a network for images by name, too, the last dense layer is the recurrent one (as in Hausknecht & Stone 2015).
    """
    *before, size = sizes.dense
    encoder, inputs = hidden_layers(
        observation_shape, before, activation=activation, generator=generator, convolutions=sizes.convolutions
    )
    recurrent = cell(inputs, size, generator)  # pyright: ignore[reportCallIssue]
    return RecurrentNetwork(encoder, recurrent, linear(size, outputs, output_gain, generator))


class RecurrentPolicy(NetworkPolicy):
    """Base of the built-in policies with a memory, a `RecurrentNetwork` of `cell`."""

    Settings = RecurrentPolicySettings
    cell: ClassVar[type[Cell]]

    @classmethod
    def build(
        cls, observation_shape: Shape, outputs: int, settings: MLPPolicySettings, generator: torch.Generator
    ) -> nn.Module:
        """As `NetworkPolicy.build`."""
        return build_recurrent_network(
            observation_shape,
            outputs,
            cell=cls.cell,
            sizes=network_sizes(Layout.of(observation_shape), settings, "policy"),
            activation=settings.activation,
            output_gain=OUTPUT_GAIN,
            generator=generator,
        )


class GRUPolicy(RecurrentPolicy):
    """A policy with gated recurrent units."""

    cell = GRU


class LSTMPolicy(RecurrentPolicy):
    """A policy with long short-term memory."""

    cell = LSTM
