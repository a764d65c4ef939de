"""Value functions with a memory of the episode (GRU, LSTM), fitted by Adam to whole sequences."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.policies.images import network_sizes, rows_at_once
from trpo_lightning.policies.observations import Layout, ObservationRows, Shape
from trpo_lightning.policies.recurrent import GRU, LSTM, Cell, RecurrentNetwork, build_recurrent_network
from trpo_lightning.policies.sequences import Sequences
from trpo_lightning.ranks import Share
from trpo_lightning.settings import NetworkValueSettings, RecurrentValueSettings
from trpo_lightning.values.gradients import LossGradient
from trpo_lightning.values.network import DescentValueFunction, FitData, Minibatch


class RecurrentValueFunction(DescentValueFunction):
    """V of the episode's observations so far; it takes `Sequences` where others take rows.

    Its memory of episodes that go on is `states`, as its parameters of then saw them. At barriers there are none.
    """

    Settings = RecurrentValueSettings
    settings: RecurrentValueSettings  # pyright: ignore[reportIncompatibleVariableOverride]
    cell: ClassVar[type[Cell]]
    network: RecurrentNetwork

    states: np.ndarray | None = None
    """The memory `[N, M]` after the last rollout's last step; zero where it does not matter."""

    def build(
        self, observation_shape: Shape, settings: NetworkValueSettings, generator: torch.Generator
    ) -> RecurrentNetwork:
        """The network at the start."""
        return build_recurrent_network(
            observation_shape,
            1,
            cell=self.cell,
            sizes=network_sizes(Layout.of(observation_shape), settings, "value"),
            activation=settings.activation,
            output_gain=1.0,
            generator=generator,
        )

    @property
    def state_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How many numbers it remembers of an episode."""
        return self.network.state_size

    @property
    def fits_on_one_thread(self) -> bool:
        """Whether a second thread is of no use: a step in time is too short for one."""
        return True

    @torch.no_grad()
    def run(self, sequences: Sequences, after: ObservationRows, chunk: int = 65536) -> tuple[Tensor, Tensor, Tensor]:
        """Follow sequences to the observations `after` `[S, *O]` them.

        Returns:
            V `[B]` along the sequences, V `[S]` after them, and the states `[S, M]` at their ends.
        """
        found = [self.network.run(sequences[part]) for part in sequences.parts(rows_at_once(self.network, chunk))]
        along, states = (torch.cat(parts) for parts in zip(*found, strict=True))
        last, _ = self.network.moved(self.network.encoded(after), states)
        return along.squeeze(-1), last.squeeze(-1), states

    @torch.no_grad()
    def predict(self, observations: Sequences, chunk: int = 65536) -> Tensor:
        """V `[B]` for sequences."""
        parts = observations.parts(rows_at_once(self.network, chunk))
        found = [self.network(observations[part]).squeeze(-1) for part in parts]
        return torch.cat(found) if found else observations.states.new_zeros(0)

    def rows_of_a_step(self, rows: int) -> int:
        """As `DescentValueFunction.rows_of_a_step`: of one step in time, at most one for each sequence."""
        return rows // self.settings.minibatches

    def minibatches(
        self, gradient: LossGradient, data: FitData, share: Share, generator: torch.Generator
    ) -> Iterator[Minibatch]:
        """`value.minibatches` parts of the sequences, shuffled; one rank alone holds them all."""
        observations, columns = data
        assert isinstance(observations, Sequences)
        order = torch.randperm(len(observations.lengths), generator=generator)
        for chosen in order.tensor_split(min(self.settings.minibatches, len(order))):
            rows = observations.rows_of(chosen).to(observations.device)
            parts = [gradient.native(column.index_select(0, rows)) for column in columns]
            yield observations.take(chosen), parts, len(rows)


class GRUValueFunction(RecurrentValueFunction):
    """With gated recurrent units."""

    cell = GRU


class LSTMValueFunction(RecurrentValueFunction):
    """With long short-term memory."""

    cell = LSTM
