import sys
import types

import numpy as np
import pytest
from synthetic_runs import experiment, finished, learning, result

from trpo_lightning.errors import UserError
from trpo_lightning.report.external import external_records


def write(folder, name="a.csv", text="steps,reward\n10,1.0\n20,3.0\n"):
    (folder / name).write_text(text)
    return folder / name


def test_a_file(tmp_path):
    file = write(tmp_path, text="steps,reward,eval\n20,3.0,\n10,1.0,7\n30,")
    (found,) = external_records(f"Other={file}:steps=steps,return=reward,evaluation=eval", experiment(tmp_path))
    assert (found.env_id, found.variant, found.seed, found.state) == ("Hopper-v5", "Other", 0, "finished")
    steps, returns = found.curve("episode/return_mean")
    assert steps.tolist() == [10, 20] and returns.tolist() == [1, 3]
    assert found.score == 2 and found.evaluation == 7 and found.run_dir is None and "elsewhere" in found.notes[0]


def test_a_label_that_is_a_variant_of_the_experiment_is_refused(tmp_path):
    name = experiment(tmp_path).cells()[0].settings.name
    with pytest.raises(UserError, match=f"{name} is a variant of the experiment: choose another label"):
        external_records(f"{name}={write(tmp_path)}:steps=steps,return=reward", experiment(tmp_path))


def test_a_glob_is_a_file_for_each_seed(tmp_path):
    for name in ("b.csv", "a.csv", "other.txt"):
        write(tmp_path, name)
    found = external_records(f"X={tmp_path}/*.csv:steps=steps,return=reward,env=Hopper-v5", experiment(tmp_path))
    assert [record.seed for record in found] == [0, 1]


def test_a_monitor_file_with_a_row_for_each_episode(tmp_path):
    file = write(tmp_path, text='#{"t_start": 1.0}\nr,l,t\n1.0,10,0.1\n3.0,20,0.2\n')
    (found,) = external_records(f"SB3={file}:steps=sum(l),return=r", experiment(tmp_path))
    assert found.curve("episode/return_mean")[0].tolist() == [10, 30] and found.score == 2


def test_rows_can_be_weighted_by_their_episodes(tmp_path):
    file = write(tmp_path, text="s,r,n\n10,1.0,60\n20,3.0,20\n30,5.0,20\n")
    (found,) = external_records(f"X={file}:steps=s,return=r,episodes=n", experiment(tmp_path))
    assert found.score == (60 + 60 + 100) / 100


def test_columns_with_odd_names(tmp_path):
    file = write(tmp_path, text='"time/steps, all","mean=reward"\n10,1.0\n')
    (found,) = external_records(f"X={file}:steps=time/steps, all,return=mean=reward", experiment(tmp_path))
    assert found.env_steps == 10


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no equals sign", "not of the form"),
        ("=a.csv", "not of the form"),
        ("X={file}:steps=steps", "return=COLUMN is missing"),
        ("X={file}:return=reward", "steps=COLUMN is missing"),
        ("X={file}", "steps=COLUMN is missing"),
        ("X={file}:steps=stepz,return=reward", r"no column stepz \(did you mean steps\?\): it has steps, reward"),
        ("X={file}:step=steps,return=reward", r"unknown option step \(did you mean steps\?\)"),
        ("X={file}:steps=steps,return=reward,env=Hopper-v4", r"env=Hopper-v4 is not .*did you mean Hopper-v5\?"),
        ("X={file}.no:steps=steps,return=reward", "there is no file"),
        ("X=wandb:a/b:steps=s,return=r", "wandb:ENTITY/PROJECT/GROUP"),
        ("X={folder}", "has no made_up/full"),
    ],
)
def test_errors_are_one_line(tmp_path, spec, message):
    file = write(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        external_records(spec.format(file=file, folder=tmp_path), experiment(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "steps,reward\n", "\x00\xff"])
def test_a_file_without_rows(tmp_path, text):
    file = write(tmp_path, text=text)
    with pytest.raises(UserError, match=r"a\.csv"):
        external_records(f"X={file}:steps=steps,return=reward", experiment(tmp_path))


def test_several_environments_need_a_choice(tmp_path):
    declared = experiment(tmp_path, environments=["Hopper-v5", "Walker2d-v5"])
    file = write(tmp_path)
    with pytest.raises(UserError, match="env=ID is missing: it has Hopper-v5, Walker2d-v5"):
        external_records(f"X={file}:steps=steps,return=reward", declared)
    (found,) = external_records(f"X={file}:steps=steps,return=reward,env=Walker2d-v5", declared)
    assert found.env_id == "Walker2d-v5"


def test_another_root(tmp_path):
    declared = experiment(tmp_path, axes={"rule.delta": [0.01, 0.1]})
    cells = declared.cells()
    other = tmp_path / "other"
    finished(other, experiment(tmp_path, axes={"rule.delta": [0.01]}))
    result(other, cells[1], learning(), "failed")
    file = other / cells[0].directory / "metrics.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([f"{lines[0]},of_another_version", *(f"{line},1" for line in lines[1:])]) + "\n")
    found = external_records(f"old={other}", declared)
    assert len(found) == len(cells)
    states = {(record.variant, record.seed): record.state for record in found}
    assert states["old delta=0.01", 0] == "finished" and states["old delta=0.1", 0] == "failed"
    assert states["old delta=0.1", 2] == "missing"
    assert found[0].levels == {"rule.delta": 0.01, "root": "old"} and found[0].provenance
    few = external_records(f"old={other}", declared, {cells[0].directory})
    assert len(few) == 1 and few[0].variant == "old" and few[0].score > 0


def test_tensorboard_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing.event_accumulator", None)
    file = write(tmp_path, "events.out.tfevents.1.host")
    with pytest.raises(UserError, match="pip install tensorboard"):
        external_records(f"X={file}:steps=step,return=r", experiment(tmp_path))


class Accumulator:
    """What the reader uses of TensorBoard's."""

    def __init__(self, path, size_guidance):
        assert size_guidance == {"scalars": 0}  # 0 keeps all

    def Reload(self):
        return self

    def Tags(self):
        return {"scalars": ["r", "e"]}

    def Scalars(self, tag):
        events = {"r": [(10, 1.0), (20, 3.0)], "e": [(20, 9.0)]}[tag]
        return [types.SimpleNamespace(step=step, value=value) for step, value in events]


def test_tensorboard_events(tmp_path, monkeypatch):
    module = types.ModuleType("event_accumulator")
    monkeypatch.setattr(module, "EventAccumulator", Accumulator, raising=False)
    path = "tensorboard.backend.event_processing.event_accumulator"
    for name in ("tensorboard", "tensorboard.backend", "tensorboard.backend.event_processing"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, path, module)
    file = write(tmp_path, "events.out.tfevents.1.host")
    (found,) = external_records(f"X={file}:steps=step,return=r,evaluation=e", experiment(tmp_path))
    assert found.curve("episode/return_mean")[0].tolist() == [10, 20] and found.evaluation == 9
    with pytest.raises(UserError, match="no tag x"):
        external_records(f"X={file}:steps=step,return=x", experiment(tmp_path))


class Api:
    """What the reader uses of W&B's."""

    def runs(self, path, filters):
        assert path == "me/mine"
        if filters == {"group": "broken"}:
            raise ConnectionError("no network")
        rows = [{"s": 10, "r": 1.0}, {"other": 1}, {"s": 20, "r": 3.0}]
        run = types.SimpleNamespace(id="abc", scan_history=lambda: iter(rows))
        return [run, run] if filters == {"group": "g"} else []


def test_wandb_groups(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setattr(wandb, "Api", Api)
    found = external_records("X=wandb:me/mine/g:steps=s,return=r", experiment(tmp_path))
    assert [record.seed for record in found] == [0, 1]
    assert np.array_equal(found[0].curve("episode/return_mean"), [[10, 20], [1, 3]]) and found[0].score == 2
    for group, message in (("none", "no run in group none"), ("broken", "ConnectionError: no network")):
        with pytest.raises(UserError, match=message):
            external_records(f"X=wandb:me/mine/{group}:steps=s,return=r", experiment(tmp_path))
    with pytest.raises(UserError, match="has no column x"):
        external_records("X=wandb:me/mine/g:steps=s,return=x", experiment(tmp_path))
