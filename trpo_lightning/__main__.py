"""`python -m trpo_lightning COMMAND`: whatever happens ends in an exit code, and in one line where it is the user's."""

import os
import sys

from trpo_lightning.command_line import build_parser
from trpo_lightning.errors import DiskError, UserError
from trpo_lightning.output import OF_FILES, drop_what_does_not_fit


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 is success, 1 a failed run, 128 + n a stop by signal n, others a `UserError`'s, in one line."""
    if arguments is None:
        drop_what_does_not_fit()
    parser = build_parser()
    try:
        options, rest = parser.parse_known_args(arguments)
        for item in rest:
            if item.startswith("-") or not hasattr(options, "overrides"):
                kind = "option" if item.startswith("-") else "argument"
                raise UserError(f"unknown {kind} {item}: see python -m trpo_lightning {options.command or ''} --help")
            options.overrides.append(item)  # argparse leaves what follows an option behind
        return options.function(options) if options.command else parser.print_help() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in OF_FILES:
            raise
        print(f"error: {error.filename or 'a file'}: cannot be read or written: {error.strerror}", file=sys.stderr)
        return DiskError.exit_code


if __name__ == "__main__":
    sys.exit(main())
