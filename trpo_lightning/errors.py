"""Exceptions that are messages to the user rather than bugs: `UserError` and its subclasses."""

BUSY = 75
"""Exit code for `BusyError` (EX_TEMPFAIL of sysexits.h)."""


class UserError(Exception):
    """An error the user can fix: the message is one line that names the key or file and says what to do.

    The command line prints the message without a traceback and exits with `exit_code`.

    Args:
        message: The text; line breaks and repeated spaces become single spaces.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class BusyError(UserError):
    """Another process is working on the same run. The command line exits with `BUSY`, which is not a failure."""

    exit_code = BUSY


class DiskError(UserError):
    """A file could not be written, or is gone; earlier files are intact. The command line exits with 74 (EX_IOERR)."""

    exit_code = 74


class StuckError(UserError):
    """A run stopped after `rule.max_rejections` rejected updates in a row; it writes a file that `replay` reads."""

    exit_code = 3


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if the message is empty."""
    text = (str(error).strip().splitlines() or [""])[0]
    return type(error).__name__ if text in ("", "<no message>") else text


def nearest(name: str, valid: list[str]) -> str:
    """Suggest the valid name closest to a mistyped one.

    Args:
        name: The text that is not valid.
        valid: All valid names; the last part of a dotted one matches too (`delta` for `rule.delta`).

    Returns:
        A hint such as `` (did you mean rule.delta?)``, or an empty string where no valid name is close.
    """
    import difflib

    matches = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    if not matches:  # a bare leaf: `delta` for `rule.delta`
        matches = [key for key in valid if key.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    return f" (did you mean {matches[0]}?)" if matches else ""
