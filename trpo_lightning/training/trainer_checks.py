"""TRPO in a user's Trainer: what is refused, in one line, and which settings loggers get.

Whatever would silently change the algorithm, or silently do nothing, is refused. Everything else works as Lightning's
documentation says, with an iteration as one step and one epoch.
"""

import warnings
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import callbacks
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from pytorch_lightning.trainer.states import TrainerFn

from trpo_lightning.errors import UserError
from trpo_lightning.settings import RunSettings, counting_keys, get
from trpo_lightning.training.metrics import METRICS
from trpo_lightning.training.third_party_messages import quiet_warnings

NO_GRADIENT_STEP = "the update is a rule's whole step, not a gradient step that it could act on"
AVERAGES = "averaged weights are no policy that was evaluated: take evaluation/return_mean and best.pt"
REFUSED: dict[type[pl.Callback], str] = {
    callbacks.StochasticWeightAveraging: AVERAGES,
    callbacks.WeightAveraging: AVERAGES,
    callbacks.GradientAccumulationScheduler: f"{NO_GRADIENT_STEP}: set steps_per_iteration",
    callbacks.LearningRateFinder: f"{NO_GRADIENT_STEP}: there is no learning rate to find, vary delta in an experiment",
    callbacks.BatchSizeFinder: "the batch is what an iteration collects: set steps_per_iteration and num_envs",
    callbacks.BaseFinetuning: "frozen parameters are of no effect: every parameter of the policy belongs to theta",
    callbacks.ModelPruning: f"{NO_GRADIENT_STEP}: a pruned weight would come back with the next one",
}
"""Lightning callbacks that TRPO refuses, and why."""
ONLY_FITS = {
    TrainerFn.VALIDATING: "validate",
    TrainerFn.TESTING: "test",
    TrainerFn.PREDICTING: "predict",
}


def check_function(trainer: pl.Trainer) -> None:
    """Refuse everything but `fit`: `validate`, `test` and `predict` raise `UserError`."""
    function = ONLY_FITS.get(trainer.state.fn) if trainer.state.fn else None
    if function:
        raise UserError(
            f"Trainer.{function}: TRPO has no data set to run over: evaluation.every evaluates while it trains, "
            "save(path) and python -m trpo_lightning evaluate do afterwards, and act(observations) acts"
        )


def check_callbacks(trainer: pl.Trainer) -> None:
    """Refuse callbacks that cannot work, and make monitoring ones wait for their metric. Raises `UserError`.

    A metric may have no value yet, such as a return before the first episode ends, and later not in every iteration.
    It is then absent from `trainer.callback_metrics`, so that `ModelCheckpoint` skips the iteration, and so does
    `EarlyStopping`, thanks to `strict=False`: its patience counts values, not iterations. (NaN would end training at
    once, by `check_finite`, and repeating the last value would use up the patience.) Callbacks that monitor an unknown
    metric are left alone: its name may be a typo.
    """
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        for cls, reason in REFUSED.items():
            if isinstance(callback, cls):
                raise UserError(f"{type(callback).__name__}: {reason}")
        if isinstance(callback, callbacks.EarlyStopping) and callback.monitor in METRICS:
            callback.strict = False
        if isinstance(callback, callbacks.ModelCheckpoint) and callback.monitor in METRICS:
            warnings.filterwarnings("ignore", message=".*could not find the monitored key in the returned metrics.*")


def check_trainer(trainer: pl.Trainer) -> None:
    """Refuse trainers that would silently change the algorithm. Raises `UserError`."""
    quiet_warnings()
    strategy = trainer.strategy
    in_processes = isinstance(strategy, DDPStrategy) and not isinstance(strategy.launcher, _MultiProcessingLauncher)
    if trainer.world_size > 1 and not in_processes:
        name = getattr(strategy, "strategy_name", type(strategy).__name__)
        raise UserError(f"Trainer(strategy={name!r}): several devices need strategy='ddp', in a script")
    if trainer.precision != "32-true":
        raise UserError(f"Trainer(precision={trainer.precision!r}): the update needs 32-true")


def hyperparameters(settings: RunSettings) -> dict[str, Any]:
    """The settings as plain values under dotted keys, which loggers accept and `weights_only=True` can load."""
    values = {key: get(settings, key) for key in counting_keys(settings)}
    return {key: value if _is_plain(value) else repr(value) for key, value in values.items()}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)
