"""Processes that have imported all they need: `python nursery.py` forks one for each line of JSON it reads.

It computes nothing itself: torch's threads do not survive a fork.

A line holds the arguments of `python -m trpo_lightning`, and the files for its output and its errors; the answer is its
exit status, negative for a signal.
"""

import json
import os
import sys

import trpo_lightning.training.run  # noqa: F401
from trpo_lightning.__main__ import main


def child(arguments: list[str], out: str, err: str) -> None:
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.exit(main(arguments))


if __name__ == "__main__":
    for line in sys.stdin:
        process = os.fork()
        if not process:
            child(**json.loads(line))
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(code, flush=True)
