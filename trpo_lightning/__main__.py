"""`python -m trpo_lightning COMMAND`: every outcome has an exit code, and errors the user can fix take one line."""

import os
import sys
from contextlib import suppress

from trpo_lightning.command_line import build_parser
from trpo_lightning.errors import DiskError, UserError
from trpo_lightning.output import OF_FILES, drop_what_does_not_fit, print_what_there_is_no_letter_for

FULL_ERROR = "TRPO_FULL_ERROR"
"""Environment variable with which an exception from the user's code is shown with its whole traceback."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: The command line without the program's name; None takes `sys.argv`.

    Returns:
        0 for success, 1 for a failed run, 128 + n for a stop by signal n; otherwise the `exit_code` of a `UserError`,
        whose message is printed in one line.
    """
    if arguments is None:
        print_what_there_is_no_letter_for()
        drop_what_does_not_fit()
        _find_modules_here()
    parser = build_parser()
    try:
        options, rest = parser.parse_known_args(arguments)
        for item in rest:
            item = _without_hyphens(item) if hasattr(options, "overrides") else item
            if item.startswith("-") or not hasattr(options, "overrides"):
                kind = "option" if item.startswith("-") else "argument"
                raise UserError(f"unknown {kind} {item}: see python -m trpo_lightning {options.command or ''} --help")
            options.overrides.append(item)  # argparse does not collect what follows an option
        return options.function(options) if options.command else parser.print_help() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        from trpo_lightning.user_modules import own_line, users_failure

        if isinstance(error, OSError) and error.errno in OF_FILES:
            line = own_line(error)
            where = f"cannot be read or written: {error.strerror}" + (f" ({line})" if line else "")
            print(f"error: {error.filename or 'a file'}: {where}", file=sys.stderr)
            return DiskError.exit_code
        told = None if os.environ.get(FULL_ERROR, "0") != "0" else users_failure(error)
        if told is None:
            raise
        more = " ".join(getattr(error, "__notes__", [])) or f"{FULL_ERROR}=1 shows what called it"
        print(f"error: {told} ({more})", file=sys.stderr)
        return 1


def _find_modules_here() -> None:
    """Let `trpo-lightning` import modules from the working directory, as `python -m` does."""
    with suppress(OSError):  # it was removed
        here = os.getcwd()
        if not sys.flags.safe_path and "" not in sys.path and here not in sys.path:
            sys.path.insert(0, here)


def _without_hyphens(item: str) -> str:
    """Turn `--rule.delta=0.02`, as W&B's `${args}` and people write it, into `rule.delta=0.02`; keep other text."""
    from trpo_lightning.settings import SWEEP_CELL, keys

    key, equals, _ = item.removeprefix("--").partition("=")
    known = {SWEEP_CELL, *(name.partition(".")[0] for name in keys())}
    return item.removeprefix("--") if equals and key.partition(".")[0] in known else item


if __name__ == "__main__":
    sys.exit(main())
