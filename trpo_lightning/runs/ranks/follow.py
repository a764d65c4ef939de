"""A rank other than the first: it trains along, and writes, prints and sends nothing.

`python -m trpo_lightning.runs.ranks.follow RANK RANKS PORT DEVICE` is how the first rank of a machine starts it.
"""

import os
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from trpo_lightning.errors import UserError
from trpo_lightning.settings import RunSettings
from trpo_lightning.stopping import StopRequest
from trpo_lightning.user_modules import users_failure

if TYPE_CHECKING:
    from trpo_lightning.ranks import Ranks


def main(rank: str, size: str, port: str, device: str) -> int:
    """Join the first rank of this machine; returns the exit code."""
    with StopRequest() as stop:  # the imports take seconds
        from trpo_lightning.ranks import RankError
        from trpo_lightning.runs.ranks.launch import LOST

        try:
            _join_and_follow(int(rank), int(size), int(port), device, stop)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return LOST if isinstance(error, RankError) else error.exit_code
        except Exception as error:
            told = users_failure(error)
            if told is None:
                raise
            print(f"error: {told}", file=sys.stderr)
            return 1
        return 0


def _join_and_follow(rank: int, size: int, port: int, device: str, stop: StopRequest) -> None:
    import torch.distributed as dist

    from trpo_lightning.ranks import DistributedRanks, RankError
    from trpo_lightning.runs.ranks.launch import HERE, START, announcement, process_group

    parent = os.getppid()

    def check() -> None:
        if os.getppid() != parent:
            raise RankError(f"rank 0 of {size} is gone")

    store = dist.TCPStore(HERE, port, size, is_master=False, timeout=START)  # pyright: ignore[reportPrivateImportUsage]
    store.set(announcement(rank), "")
    with process_group(device, store=store, rank=rank, world_size=size):
        follow(DistributedRanks(size, check), stop)


def follow_torchrun(settings: RunSettings, place: tuple[int, int, int], stop: StopRequest) -> int:
    """Join the first of the ranks that torchrun has started; returns the exit code."""
    from trpo_lightning.runs.ranks.launch import group_of_torchrun

    with group_of_torchrun(settings, place) as ranks:
        follow(ranks, stop)
    return 128 + stop.signal_number if stop.signal_number else 0


def follow(ranks: "Ranks", stop: StopRequest) -> None:
    """Train along with the first rank, which sends settings and state. Raises `UserError` as it does."""
    from trpo_lightning.runs.ranks.member import StopBetweenIterations, iterate, prepared, trainer_of
    from trpo_lightning.training.evaluation import EvaluationCallback
    from trpo_lightning.training.third_party_messages import quiet_lightning

    quiet_lightning()
    told: Any = None
    settings, state, run_dir = ranks.of_first(told)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        module = prepared(settings, run_dir, state, ranks)
        trainer = trainer_of(settings, run_dir, [], [EvaluationCallback(), StopBetweenIterations(stop, ranks)])
        if ranks.of_first(None):
            iterate(trainer, module, stop)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
