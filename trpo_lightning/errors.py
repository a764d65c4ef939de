"""The one exception that is a message to the user, not a bug."""

BUSY = 75
"""Exit code for `BusyError` (EX_TEMPFAIL of sysexits.h)."""


class UserError(Exception):
    """Something the user can put right: the message is one line that names the key or file and what to do.

    The command line prints the message and exits with `exit_code`; there is no traceback.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class BusyError(UserError):
    """Another process is at the same run: the command line exits with `BUSY`, which is not a failure."""

    exit_code = BUSY


class DiskError(UserError):
    """A file could not be written, or is gone: the command line exits with 74 (EX_IOERR); earlier files are whole."""

    exit_code = 74


class StuckError(UserError):
    """A run stopped after `rule.max_rejections` rejected updates in a row; `replay` reads the file it leaves."""

    exit_code = 3


def nearest(name: str, valid: list[str]) -> str:
    """A hint such as `` (did you mean rule.delta?)``, or nothing where no valid name is close."""
    import difflib

    matches = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    if not matches:  # a bare leaf: `delta` for `rule.delta`
        matches = [key for key in valid if key.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    return f" (did you mean {matches[0]}?)" if matches else ""
