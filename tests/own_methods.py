"""Methods of one's own, for `module:Class` in tests: the smallest that work, and ones that do not."""

from dataclasses import dataclass

import torch

from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import MLPPolicy
from trpo_lightning.policies.recurrent import Cell, RecurrentPolicy
from trpo_lightning.rollouts.single_path import SinglePathScheme
from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.rules.trust_region import TrustRegionRule
from trpo_lightning.settings import (
    AdvantageRuleSettings,
    FittedValueSettings,
    MLPPolicySettings,
    RuleSettings,
    SinglePathSettings,
    TrustRegionSettings,
    option,
)
from trpo_lightning.values.network import NetworkValueFunction
from trpo_lightning.values.value_function import NoValueFunction


class WideStart(MLPPolicy):
    """The built-in policies with another start."""

    @classmethod
    def for_spaces(cls, observation_shape, actions, settings, generator):
        policy = super().for_spaces(observation_shape, actions, settings, generator)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(1.5)
        return policy


class MinimalUnit(Cell):
    """A minimal gated unit (Zhou et al. 2016), step by step."""

    def __init__(self, inputs, size, generator):
        super().__init__(inputs, size, generator, gates=2, state_size=size)

    def forward(self, x, state):
        w, u, b, found = self.weight_ih.chunk(2), self.weight_hh.chunk(2), self.bias_ih.chunk(2), []
        for now in x:
            f = torch.sigmoid(now @ w[0].T + state @ u[0].T + b[0])
            state = (1 - f) * state + f * torch.tanh(now @ w[1].T + (f * state) @ u[1].T + b[1])
            found.append(state)
        return torch.stack(found), state


class MinimalPolicy(RecurrentPolicy):
    """A built-in distribution with a recurrent layer of one's own."""

    cell = MinimalUnit


@dataclass
class DriftSettings(AdvantageRuleSettings):
    drift: float = option(0.01, "what is added to each parameter", source="made up", above=0.0)


class Drift(UpdateRule):
    """Adds `drift` to each parameter, and remembers how often."""

    Settings = DriftSettings
    updates = 0

    def update(self, policy, batch, generator):
        self.updates += 1
        theta = parameter_vector(policy)
        noise = torch.randn(len(theta), generator=generator)
        return RuleResult(theta + self.settings.drift * noise, None, {"drift/updates": float(self.updates)})

    def state_dict(self):
        return {"updates": self.updates}

    def load_state_dict(self, state):
        self.updates = state["updates"]


class WrongShape(UpdateRule):
    def update(self, policy, batch, generator):
        return RuleResult(parameter_vector(policy)[:-1])


class ReturnsNothing(UpdateRule):
    def update(self, policy, batch, generator):
        return None


class Fails(UpdateRule):
    def update(self, policy, batch, generator):
        return batch.observations @ torch.zeros(1, 1)


class Writes(UpdateRule):
    def update(self, policy, batch, generator):
        with torch.no_grad():
            next(policy.parameters()).add_(1.0)
        return RuleResult(parameter_vector(policy))


@dataclass
class ConstantSettings(NoValueFunction.Settings):
    level: float = option(0.5, "the value of every state", minimum=-10.0)


class Constant(NoValueFunction):
    """V is the same everywhere."""

    Settings = ConstantSettings

    def predict(self, observations, chunk=65536):
        return super().predict(observations) + self.settings.level


class ShortValues(NoValueFunction):
    def predict(self, observations, chunk=65536):
        return torch.zeros(3)


@dataclass
class ShyPathSettings(SinglePathSettings):
    skipped: int = option(0, "made up", minimum=0)


class ShyPath(SinglePathScheme):
    Settings = ShyPathSettings


class NotAMethod:
    Settings = MLPPolicySettings


class NoDataclass(UpdateRule):
    class Settings(RuleSettings):
        pass


@dataclass
class UndeclaredSettings(RuleSettings):
    plain: int = 3


class Undeclared(UpdateRule):
    Settings = UndeclaredSettings


@dataclass
class ClashingSettings(RuleSettings):
    max_rejections: str = option("many", "another meaning of a key that all rules have")


class Clashing(UpdateRule):
    Settings = ClashingSettings


@dataclass
class LongerSettings(TrustRegionSettings):
    delta: float = option(0.05, "a default of its own", above=0.0)


class Longer(TrustRegionRule):
    Settings = LongerSettings


@dataclass
class ClashSettings(FittedValueSettings):
    epochs: str = option("many", "a key that value.name=adam has as a number")


class Clash(NoValueFunction):
    Settings = ClashSettings


class Documented(NetworkValueFunction):
    """With the signatures that the documentation shows, and no other arguments."""

    def predict(self, observations):
        return super().predict(observations)

    def fit(self, observations, targets, generator):
        return super().fit(observations, targets, generator)


class NoTheta(UpdateRule):
    def update(self, policy, batch, generator):
        return RuleResult(None)


class NoMetrics(UpdateRule):
    def update(self, policy, batch, generator):
        return RuleResult(parameter_vector(policy), metrics=None)


class ArrayOfValues(NoValueFunction):
    def predict(self, observations, chunk=65536):
        return observations.numpy()[:, 0]


class MeasuresNothing(NoValueFunction):
    def measure(self):
        return None
