"""Who may use how many cores."""

import threading

import pytest
import torch
from threadpoolctl import ThreadpoolController

from trpo_lightning.threads import torch_threads


@pytest.fixture
def openblas():
    """NumPy's OpenBLAS on two threads."""
    found = ThreadpoolController().select(internal_api="openblas").lib_controllers
    if not found:
        pytest.skip("NumPy has another BLAS")
    before = found[0].num_threads
    found[0].set_num_threads(2)
    yield found[0]
    found[0].set_num_threads(before)


def test_torch_gets_what_it_is_given_and_numpy_one(openblas):
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        assert openblas.num_threads == 1
        with pytest.raises(ZeroDivisionError), torch_threads(1):
            assert torch.get_num_threads() == 1
            1 / 0  # noqa: B018
        assert torch.get_num_threads() == before + 1
        assert openblas.num_threads == 1
    assert torch.get_num_threads() == before
    assert openblas.num_threads == 2


def test_numpy_has_one_until_the_last_has_left(openblas):
    inside, go = threading.Event(), threading.Event()
    seen = []

    def beside():
        with torch_threads(1):
            inside.set()
            go.wait(10)
            seen.append(openblas.num_threads)

    thread = threading.Thread(target=beside)
    with torch_threads(1):
        thread.start()
        assert inside.wait(10)
    go.set()
    thread.join()
    assert seen == [1]
    assert openblas.num_threads == 2
