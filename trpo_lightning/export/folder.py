"""`export`: the folder, whole or not at all, and on its way to a hub."""

import os
import shutil
from pathlib import Path

from trpo_lightning.errors import DiskError, UserError
from trpo_lightning.export.card import CARD, CURVE, ONNX, model_card
from trpo_lightning.export.summary import RunSummary, run_summary
from trpo_lightning.extras import check_extra
from trpo_lightning.report.figures.run_curve import draw_run
from trpo_lightning.runs.config import write_config
from trpo_lightning.runs.trained import load
from trpo_lightning.storage.files import write_atomically
from trpo_lightning.storage.portable import REST, WEIGHTS, write_portable
from trpo_lightning.training.trained_policy import TrainedPolicy

CONFIG = "config.yaml"


def export_policy(run_dir: Path, folder: Path, which: str = "last", push: str | None = None) -> dict[str, str]:
    """Write the folder, and upload it if `push` names a repository.

    Args:
        run_dir: A run directory, or anything else that `load` reads.
        folder: Where to; it may exist if it is empty.
        which: Of a run directory, `last` or `best`.
        push: A repository on a hub, `user/name`; it is created if need be.

    Returns:
        The folder's files, with a meaning for each.

    Raises:
        UserError: There is no policy, the folder is not empty, a package is missing, or the hub refuses it.
        DiskError: The folder cannot be written.
    """
    check_extra("export", "export")
    if push:
        check_extra("hub", f"--push {push}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--to {folder}: is a file: name a folder that does not exist yet")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--to {folder}: is not empty: name another folder, or remove it")
    trained = load(run_dir, which)
    facts = run_summary(run_dir, trained)
    files = _write(trained, facts, folder)
    if push:
        from trpo_lightning.export.hub import push_folder

        push_folder(folder, push)
    return files


def _write(trained: TrainedPolicy, facts: RunSummary, folder: Path) -> dict[str, str]:
    """Fill a folder beside the final one, then rename it."""
    folder = folder.resolve()  # `.` has no name
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        files = _fill(trained, facts, temporary, folder.name)
        if folder.is_dir():
            folder.rmdir()
        temporary.rename(folder)
        return files
    except OSError as error:
        raise DiskError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(trained: TrainedPolicy, facts: RunSummary, folder: Path, name: str) -> dict[str, str]:
    write_portable(trained.state(), folder)
    write_config(trained.settings, folder / CONFIG)
    files = {
        WEIGHTS: "the weights, and the statistics of the normalizer",
        REST: "spaces, settings and counters: with the weights all that `load` needs",
        CONFIG: "the run's settings",
    }
    if _onnx(trained, folder / ONNX):
        files[ONNX] = "the deterministic policy with its normalizer, from observations to actions"
    if draw_run(facts.columns, f"{trained.settings.env.id}, seed {trained.settings.seed}", folder / CURVE):
        files[CURVE] = "returns over env steps"
    write_atomically(folder / CARD, model_card(trained, facts, name, files).encode())
    return {CARD: "this page, with the scores", **files}


def _onnx(trained: TrainedPolicy, file: Path) -> bool:
    """Whether the policy could be written as ONNX; one of someone's own may do what no graph can."""
    from trpo_lightning.export.onnx_policy import write_onnx

    if trained.policy.state_size:
        name = trained.settings.policy.name
        print(f"warning: no {file.name}: policy.name={name} remembers the episode, and the graph is of one step")
        return False
    try:
        write_onnx(trained, file)
    except UserError as error:
        file.unlink(missing_ok=True)
        if ":" not in trained.settings.policy.name and not trained.normalizer.layout.is_packed:
            raise
        print(f"warning: no {file.name}: {error}")
        return False
    return True
