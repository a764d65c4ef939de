"""Makes `tests/environments.py` importable by name, as `env.id=environments:counting` needs it."""

import signal
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

# Started in the background, a process may be told to ignore Ctrl-C and hang-ups, and so would all of its children here.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def same_number_of_threads():
    """A run in this process sets torch's number of threads: the next test finds the machine's again."""
    yield
    torch.set_num_threads(THREADS)
