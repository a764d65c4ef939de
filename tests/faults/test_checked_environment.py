"""What watches over environments, part by part: the message for each fault, the time limit, processes that end."""

import faulthandler
import multiprocessing
import os
import re
import signal
import threading
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from odd_environments import Endless

from trpo_lightning.environments.supervised import deadline as deadlines
from trpo_lightning.environments.supervised.checked_environment import CheckedEnvironment, locate, space_mismatch
from trpo_lightning.environments.supervised.deadline import Deadline, Overdue
from trpo_lightning.environments.supervised.process_backend import ProcessEnvironments
from trpo_lightning.environments.vector_environment import EnvironmentFailure
from trpo_lightning.settings import EnvSettings

GOOD = (np.zeros(2), 1.0, False, False, {})
ACTIONS = np.zeros((2, 1))


class Scripted(Endless):
    """Returns, or raises, what it is told to."""

    def __init__(self):
        self.result, self.begin = GOOD, (np.zeros(2), {})

    def reset(self, *, seed=None, options=None):
        return _given(self.begin)

    def step(self, action):
        return _given(self.result)

    def close(self):
        _given(self.result)


def _given(value):
    if isinstance(value, BaseException):
        raise value
    return value


RAISED = f" ({__file__}:{_given.__code__.co_firstlineno + 2})"
"""Where the user's code failed."""


@pytest.fixture
def checked():
    env = CheckedEnvironment(Scripted(), "some_id", 3)
    env.reset(seed=11)
    return env


def fault_of(call, *arguments) -> str:
    with pytest.raises(EnvironmentFailure) as raised:
        call(*arguments)
    return str(raised.value)


@pytest.mark.parametrize(
    ("result", "what"),
    [
        (GOOD[:4], "step returned a tuple of 4, not (observation, reward, terminated, truncated, info)"),
        ((*GOOD, 1), "step returned a tuple of 6, not (observation, reward, terminated, truncated, info)"),
        (list(GOOD), "step returned a list of 5, not (observation, reward, terminated, truncated, info)"),
        ((None, *GOOD[1:]), "its observation is None, not numbers of shape (2,)"),
        ((GOOD[0], None, *GOOD[2:]), "its reward is None, not a number"),
        ((GOOD[0], np.ones(2), *GOOD[2:]), "its reward is an array of float64 of shape (2,), not a number"),
        ((GOOD[0], 1j, *GOOD[2:]), "its reward is a complex, not a number"),
        ((*GOOD[:2], "no", *GOOD[3:]), "its terminated is a str, not a number"),
        ((*GOOD[:2], np.zeros(2, bool), *GOOD[3:]), "its terminated is an array of bool of shape (2,), not a number"),
        ((*GOOD[:3], None, {}), "its truncated is None, not a number"),
        ((*GOOD[:3], "no", {}), "its truncated is a str, not a number"),
        (ValueError("a\nb"), f"ValueError: a b{RAISED}"),
        (SystemExit(), f"SystemExit{RAISED}"),
    ],
)
def test_a_fault_in_step_is_told_with_its_place(checked, result, what):
    checked.step(0)
    checked.env.result = result
    assert fault_of(checked.step, 0) == f"env.id=some_id: environment 3 (seed 11) in step 2 of episode 1: {what}"
    assert not checked.busy


@pytest.mark.parametrize(
    ("begin", "what"),
    [
        (np.zeros(2), "reset returned an array of float64 of shape (2,), not (observation, info)"),
        ((np.zeros(2), {}, 0), "reset returned a tuple of 3, not (observation, info)"),
        ([np.zeros(2), {}], "reset returned a list of 2, not (observation, info)"),
        ((np.zeros(3), {}), "its observation has shape (3,), not (2,)"),
        (SystemExit(1), f"SystemExit: 1{RAISED}"),
        (OSError("x"), f"OSError: x{RAISED}"),
    ],
)
def test_a_fault_in_reset_is_told_with_its_place(checked, begin, what):
    checked.step(0)
    checked.env.begin = begin
    assert fault_of(checked.reset) == f"env.id=some_id: environment 3 (seed 11) in the reset of episode 2: {what}"


def test_episodes_are_counted_from_the_last_seed(checked):
    checked.reset()
    checked.reset()
    assert checked.where() == "env.id=some_id: environment 3 (seed 11) in the reset of episode 3"
    checked.reset(seed=5)
    checked.step(0)
    assert checked.where() == "env.id=some_id: environment 3 (seed 5) in step 1 of episode 1"


def test_numbers_of_other_types_pass_as_numbers(checked):
    checked.env.result = (np.zeros(2, np.float32), np.array([2]), np.bool_(True), np.array([0]), None)
    _, reward, terminated, truncated, info = checked.step(0)
    assert (reward, terminated, truncated, info) == (2, True, False, {})
    assert type(reward) is int and type(terminated) is bool and type(truncated) is bool


def test_what_close_does_is_only_a_warning(checked, capsys):
    for error in (ValueError("shut"), SystemExit("now")):
        checked.env.result = error
        checked.close()
        text = capsys.readouterr().out
        assert text.startswith("warning: env.id=some_id: environment 3 cannot be closed: ") and error.args[0] in text


def test_the_busy_one_of_several_is_named(checked):
    other = CheckedEnvironment(Scripted(), "some_id", 4)
    other.reset(seed=1)
    assert locate([checked, other], "some_id") == "env.id=some_id"
    other.busy = True
    assert "environment 4 " in locate([gym.Env(), checked, other], "some_id")


BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
INTEGERS = spaces.Box(0, 9, (2,), np.int64)
SEVERAL = spaces.Dict({"a": BOX, "b": spaces.Discrete(3)})


@pytest.mark.parametrize(
    ("space", "observation", "fault"),
    [
        (BOX, [7, 8], ""),
        (BOX, np.zeros(2, np.float64), ""),
        (BOX, np.zeros((2, 1)), "has shape (2, 1), not (2,)"),
        (BOX, np.zeros(2, complex), "is an array of complex128 of shape (2,), not numbers of shape (2,)"),
        (INTEGERS, np.zeros(2), "has dtype float64, not int64"),
        (INTEGERS, np.zeros(2, bool), ""),
        (spaces.Discrete(3), 2, ""),
        (spaces.Discrete(3), 3, "is 3, which is not in Discrete(3)"),
        (spaces.Discrete(3, start=1), 3, ""),
        (spaces.Discrete(3, start=1), 0, "is 0, which is not in Discrete(3, start=1)"),
        (spaces.Discrete(3), np.array([1]), "has shape (1,), not ()"),
        (spaces.MultiDiscrete([2, 3]), [1, 2], ""),
        (spaces.MultiDiscrete([2, 3]), [2, 1], "is [2, 1], which is not in MultiDiscrete([2 3])"),
        (SEVERAL, {"a": np.zeros(2), "b": 1}, ""),
        (SEVERAL, {"a": np.zeros(2)}, "is a dict, not a dict of a, b"),
        (SEVERAL, {"a": np.zeros(2), "b": 1, "c": 2}, "is a dict, not a dict of a, b"),
        (SEVERAL, [1], "is a list of 1, not a dict of a, b"),
        (SEVERAL, {"a": np.zeros(2), "b": 5}, "is 5, which is not in Discrete(3)"),
        (spaces.Tuple((BOX, BOX)), (np.zeros(2),), "is a tuple of 1, not a tuple of 2"),
        (spaces.Tuple((BOX, BOX)), np.zeros((2, 2)), "is an array of float64 of shape (2, 2), not a tuple of 2"),
        (spaces.Tuple((BOX, BOX)), (np.zeros(2), np.zeros(1)), "has shape (1,), not (2,)"),
        (spaces.Tuple((BOX, BOX)), [np.zeros(2), np.zeros(2)], ""),
    ],
)
def test_how_an_observation_differs_from_its_space(space, observation, fault):
    assert space_mismatch(space, observation) == fault


def test_a_call_in_time_is_left_alone_and_the_watcher_falls_asleep():
    limit = Deadline(0.2, lambda: "here")
    for _ in range(3):
        with limit:
            assert 0.0 > limit.late() >= -0.2
    assert limit.late() == -1.0
    end = time.monotonic() + 5.0
    while not deadlines._WATCHER.asleep:
        assert time.monotonic() < end
        time.sleep(0.02)
    with limit:
        assert not deadlines._WATCHER.asleep
    time.sleep(0.3)  # outside, nothing is late


def test_each_call_has_its_own_time():
    limit = Deadline(0.5, lambda: "here")
    for _ in range(4):
        with limit:
            time.sleep(0.2)


def test_a_call_that_takes_too_long_ends_there():
    began = time.monotonic()
    with pytest.raises(EnvironmentFailure, match=r"^here: no answer within env.timeout=0.3 seconds$"):
        with Deadline(0.3, lambda: "here"):
            time.sleep(30)
    assert 0.3 <= time.monotonic() - began < 2.0
    with pytest.raises(EnvironmentFailure):  # the next one is watched, too, and so is another one after it
        with Deadline(0.1, lambda: "there"):
            time.sleep(30)
    with Deadline(None, lambda: "for ever"):
        time.sleep(0.3)


def test_other_errors_and_other_peoples_alarms_pass():
    with pytest.raises(KeyError), Deadline(5.0, lambda: "here"):
        raise KeyError
    heard = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    try:
        with Deadline(5.0, lambda: "here"):
            pass
        deadlines._WATCHER.deadline = None
        with Deadline(5.0, lambda: "here"):
            signal.raise_signal(signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert heard == [1]


def test_faulthandler_stands_by_while_a_call_goes_on_and_only_then(monkeypatch):
    said = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, **how: said.append((seconds, how)))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: said.append("cancelled"))
    with Deadline(0.1, lambda: "here"):
        pass
    end = time.monotonic() + 5.0
    while said[-1] != "cancelled":
        assert time.monotonic() < end
        time.sleep(0.02)
    assert said[0] == (pytest.approx(0.1 + 0.01 + deadlines.GRACE + 1.0), {"exit": True, "file": 2})


def test_a_child_process_has_a_watcher_of_its_own():
    with Deadline(5.0, lambda: "here"):
        pass
    child = os.fork()
    if not child:
        try:
            with Deadline(0.2, lambda: "here"):
                time.sleep(5.0)
        except EnvironmentFailure:
            os._exit(42)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def hard_exit(monkeypatch, capfd, *actions) -> str:
    """What is left of a process that a hanging call ends."""

    def leave(code):
        assert code == 2
        raise SystemExit

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit):
        deadlines._leave(Deadline(3.0, lambda: "here"))
    return capfd.readouterr().err


def test_actions_before_a_hard_exit_are_done_whatever_they_raise(monkeypatch, capfd):
    done = []
    with deadlines.before_hard_exit(lambda: 1 / 0), deadlines.before_hard_exit(lambda: done.append(1)):
        said = hard_exit(monkeypatch, capfd)
    assert said == "error: here: no answer within env.timeout=3 seconds\n" and done == [1]
    hard_exit(monkeypatch, capfd)
    assert done == [1]


@pytest.fixture
def processes():
    made = []

    def make(number=2, **changes):
        settings = EnvSettings(**{"id": "odd_environments:endless", **changes})
        made.append(ProcessEnvironments(settings, list(range(number))))
        return made[-1]

    yield make
    for envs in made:
        envs.close()
    assert not multiprocessing.active_children()


def test_steps_and_episodes_of_processes_are_counted_here(processes):
    envs = processes(3, max_episode_steps=2)
    envs.reset()
    actions = np.zeros((3, 1))
    places = []
    for _ in range(5):
        envs.step(actions)
        places.append(envs._where([1]).partition("in ")[2])
    assert places == [
        *("step 1 of episode 1", "step 2 of episode 1", "the reset of episode 2"),
        *("step 1 of episode 2", "step 2 of episode 2"),
    ]
    assert envs._where([1, 2]).startswith("env.id=odd_environments:endless: environment 1 and 1 more (seed 1) in ")


def test_later_resets_go_on_with_the_random_numbers(processes):
    envs, again = processes(), processes()
    first = envs.reset()
    assert (envs.reset() != first).all() and (again.reset() == first).all()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGALRM])
def test_a_process_that_is_killed_between_two_steps_is_named(processes, number):
    envs = processes()
    envs.reset()
    os.kill(envs._envs.processes[1].pid, number)
    envs._envs.processes[1].join(5.0)
    said = fault_of(envs.step, ACTIONS)
    place = "env.id=odd_environments:endless: environment 1 (seed 1) in step 1 of episode 1"
    assert said == f"{place}: its process was killed by signal {number:d}"
    assert not any(process.is_alive() for process in envs._envs.processes)


@pytest.mark.parametrize(
    ("fault", "at", "said"),
    [
        ("raise", 1, "in step 1 of episode 1: RuntimeError: the simulator broke [in two lines]"),
        ("raise", 0, "in the reset of episode 1: RuntimeError: the simulator broke [in two lines]"),
        ("vanish", 1, "in step 1 of episode 1: its process ended with exit code 0"),
    ],
)
def test_a_fault_in_one_process_ends_them_all(processes, tmp_path, fault, at, said):
    (tmp_path / "flag").touch()
    kwargs = {"fault": fault, "at": at, "flag": str(tmp_path / "flag"), "spared": 1}
    envs = processes(id="odd_environments:faulty", kwargs=kwargs)
    if at == 0:
        found = fault_of(envs.reset)
    else:
        envs.reset()
        found = fault_of(envs.step, ACTIONS)
    assert re.sub(r" ?\(?\S*odd_environments\.py:\d+\)$", "", found).endswith(said)
    assert not any(process.is_alive() for process in envs._envs.processes)


def test_the_silent_ones_are_named_and_all_end(processes):
    envs = processes(3, timeout=0.5)
    envs.reset()
    workers = list(envs._envs.processes)
    for process in workers[1:]:
        os.kill(process.pid, signal.SIGSTOP)
    said = fault_of(envs.step, np.zeros((3, 1)))
    place = "environment 1 and 1 more (seed 1) in step 1 of episode 1"
    assert said == f"env.id=odd_environments:endless: {place}: no answer within env.timeout=0.5 seconds"
    assert not any(process.is_alive() for process in workers)


def test_processes_leave_ctrl_c_to_their_parent(processes):
    envs = processes()
    envs.reset()
    for process in envs._envs.processes:
        os.kill(process.pid, signal.SIGINT)
    envs.step(ACTIONS)


def test_processes_that_do_not_close_are_killed_with_a_warning(processes, capsys):
    envs = processes(timeout=0.2)
    envs.reset()
    workers = list(envs._envs.processes)
    os.kill(workers[0].pid, signal.SIGSTOP)
    envs.close()
    assert "warning: env.id=odd_environments:endless: its processes were killed" in capsys.readouterr().out
    assert not any(process.is_alive() for process in workers)
    envs.close()


def test_an_interruption_ends_the_processes(processes):
    envs = processes()
    envs.reset()
    workers = list(envs._envs.processes)
    os.kill(workers[0].pid, signal.SIGSTOP)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        envs.step(ACTIONS)
    timer.join()
    assert not any(process.is_alive() for process in workers)


def test_a_deadline_of_another_thread_raises_nothing_here():
    """The watcher signals the main thread only for its own calls; of another one it ends the process, but later."""
    ended = []

    def work():
        with Deadline(0.1, lambda: "there"):
            time.sleep(0.5)
        ended.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        thread.join(5.0)
    except Overdue:
        pytest.fail("the main thread was interrupted")
    assert ended == [1]
