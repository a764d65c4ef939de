"""Starting and ending the W&B client: without prompts, without output, and with a time limit on every wait."""

import netrc
import os
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from trpo_lightning.errors import UserError, first_line
from trpo_lightning.settings import RunSettings
from trpo_lightning.tracking.wandb_variables import disabled, link_records, records_folder

CONNECT_TIMEOUT = 5
INIT_TIMEOUT = 20
"""Seconds to wait for a server to connect, or to answer, before the run is recorded offline."""
FINISH_TIMEOUT = 60
"""Seconds that a run waits at its end for W&B to take the remaining rows."""


def resolve_mode(mode: str) -> str:
    """Resolve `auto`: WANDB_DISABLED or WANDB_MODE if set, else online if a key is configured, else offline.

    Never prompts.
    """
    if mode != "auto":
        return mode
    if disabled():
        return "disabled"
    chosen = os.environ.get("WANDB_MODE", "")
    if chosen in ("online", "offline", "disabled"):
        return chosen
    if chosen == "dryrun":
        return "offline"
    return "online" if _has_key() else "offline"


def mode_of(settings: RunSettings) -> str:
    """W&B's mode for a run: `disabled` where it is not among `tracking.loggers`, and what `resolve_mode` says."""
    return resolve_mode(settings.tracking.wandb) if "wandb" in settings.tracking.loggers else "disabled"


def _has_key() -> bool:
    """Whether W&B finds an API key without asking for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    client = _client()
    if client.api_key:
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(client.base_url).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def open_run(mode: str, settings: RunSettings, run_dir: Path, **arguments: Any) -> Any:
    """Call `wandb.init`, offline if online fails; if both fail, print why and return None.

    If the client's process has been killed since an earlier run of this process, it is started anew.
    """
    for again in (False, True):
        try:
            return _open_run(mode, settings, run_dir, **arguments)
        except Exception as error:
            if again or not _is_gone(error):
                print(f"warning: no W&B records of this run ({first_line(error)}); {run_dir} has its own")
                return None
            forget_client()


def _open_run(mode: str, settings: RunSettings, run_dir: Path, **arguments: Any) -> Any:
    import wandb

    reason = ""
    client = _client()
    folder = str(records_folder(run_dir))
    arguments |= {"group": settings.tracking.group, "dir": folder, "settings": _run_settings()}
    if client.sweep_id:  # a sweep sets these itself
        arguments.pop("id", None)
    else:
        arguments |= {"project": settings.tracking.project, "entity": settings.tracking.entity}
    if mode == "online":
        try:
            check_server()
            run = wandb.init(mode="online", **arguments)
            link_records(Path(run.dir).parent, run_dir)
            return run
        except Exception as error:
            if _is_gone(error):
                raise
            reason = first_line(error)
            forget_client()
    run = wandb.init(mode="offline", **arguments)
    link_records(Path(run.dir).parent, run_dir)
    if reason:
        print(f"warning: W&B is out of reach ({reason}); later: wandb sync {Path(run.dir).parent}")
    return run


GONE = ("HandleAbandonedError", "MailboxClosedError", "WandbServiceConnectionError")
"""What the client raises if its own process has died; W&B keeps these classes in private modules."""


def _is_gone(error: Exception) -> bool:
    return type(error).__name__ in GONE or isinstance(error, (ConnectionResetError, BrokenPipeError))


def check_server() -> None:
    """Raise if there is no key, for which the client would prompt, or no server, for which it would wait."""
    if not _has_key():
        raise UserError("no API key is configured")
    parts = urlsplit(_client().base_url)
    if parts.hostname and not getproxies().keys() & {"http", "https", "all"}:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((parts.hostname, port), CONNECT_TIMEOUT).close()


def check_key() -> None:
    """Raise if the server rejects the key: the client says nothing when that happens in the middle of a run."""
    import wandb

    wandb.Api(timeout=CONNECT_TIMEOUT)  # signs in


def _client() -> Any:
    """The client's settings from files and the environment, which it reads once; it prints nothing from then on.

    A process may have inherited the address of a client that has ended since: then it starts its own.
    """
    import wandb

    quiet = wandb.Settings(silent=True)
    try:
        return wandb.setup(settings=quiet).settings
    except Exception as error:
        if not _is_gone(error):
            raise
        forget_client()
        return wandb.setup(settings=quiet).settings


def _run_settings() -> Any:
    """Settings with time limits: by default, finishing hangs if the server is gone, and a kill loses 15 s of rows."""
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        init_timeout=INIT_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        finish_timeout_raises=True,
        x_transaction_log_flush_interval=1,
    )


def kill_client() -> None:
    """Kill the client's process, so that calls waiting for its answer fail."""
    with suppress(Exception):
        _process().kill()


def forget_client() -> None:
    """Stop the client from contacting its process, when Python exits or a next run begins; the process ends."""
    import wandb

    process = None
    with suppress(Exception):
        process = _process()
    try:
        wandb.teardown()
    except (Exception, SystemExit):  # it exits with the exit code of a process that was killed
        if process is not None:
            process.kill()
            process.wait()
    os.environ.pop("WANDB_SERVICE", None)  # where the client would look for its address


def _process() -> subprocess.Popen:
    import wandb

    return wandb.setup()._connection._proc._process  # pyright: ignore  there is no public API for it
