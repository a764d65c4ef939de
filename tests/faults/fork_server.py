"""Processes that have imported all they need: `python fork_server.py` forks one for each line of JSON it reads.

It computes nothing itself: torch's threads do not survive a fork.

A line holds the arguments of `python -m trpo_lightning`, and the files for its output and its errors; the answer is its
exit status, negative for a signal. With `"tell_pid": true` a line with its pid comes first. `"strike"` holds
`operation`, `count` and `signals`: the process gets these signals right before the `count`-th of its file operations
that match the regular expression (`repr` of the audit event's name and arguments).
"""

import json
import os
import re
import sys

import envpool  # noqa: F401
import wandb  # noqa: F401

import trpo_lightning.runs.run  # noqa: F401
from trpo_lightning.__main__ import main

OPERATIONS = ("open", "fcntl.flock", "os.mkdir", "os.rename", "os.remove")


def child(arguments: list[str], out: str, err: str, strike: dict | None = None) -> None:
    os.setpgid(0, 0)  # its signals to a group are for its own processes
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if strike:
        strike_before(**strike)
    sys.exit(main(arguments))


def strike_before(operation: str, count: int, signals: list[int]) -> None:
    left = count

    def watch(event: str, details: tuple) -> None:
        nonlocal left
        if event in OPERATIONS and re.search(operation, repr((event, *details))):
            left -= 1
            for number in signals if not left else ():
                os.kill(os.getpid(), number)

    sys.addaudithook(watch)


if __name__ == "__main__":
    for line in sys.stdin:
        order = json.loads(line)
        tell_pid = order.pop("tell_pid", False)
        process = os.fork()
        if not process:
            child(**order)
        if tell_pid:
            print(process, flush=True)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(code, flush=True)
