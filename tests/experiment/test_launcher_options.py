"""What a launcher is told, on the command line and in its file, and how mistakes are named."""

import pytest

from trpo_lightning.__main__ import main
from trpo_lightning.errors import UserError
from trpo_lightning.experiment.launchers.options import LauncherOptions, minutes, read_options
from trpo_lightning.experiment.runner import run_cells
from trpo_lightning.settings import from_keywords

FILE = """
launcher: slurm
partition: cpu
time: 1-00:00
cpus: 4
setup: [module load python]
sbatch: {account: lab}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text(FILE)
    return "cluster.yaml"


def test_flags_outweigh_the_file(file):
    options = read_options(file, {"partition": "gpu", "cpus": None, "shared": None, "array_size": 7})
    assert options == LauncherOptions(
        "slurm",
        partition="gpu",
        time="1-00:00",
        cpus=4,
        array_size=7,
        setup=["module load python"],
        sbatch={"account": "lab"},
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partition: cpu", "cluster.yaml: the key launcher is missing: launcher: slurm"),
        ("launcher: slurm\npartitoin: cpu", "cluster.yaml: unknown key partitoin (did you mean partition?)"),
        ("launcher: slurm\ncpus: many", "cluster.yaml: cpus='many' is not of type int | None"),
        ("launcher: slurm\nsetup: module load python", "cluster.yaml: setup='module load python' is not of type list"),
        ("launcher: slurm\ncpus: 0", "cpus=0 is not a positive integer"),
        ("launcher: slurm\ntime: soon", "time='soon' is not a time limit: minutes, H:MM:SS or D-HH:MM"),
        ("launcher: moon", "launcher moon is not one of local, ray, slurm"),
        ("launcher: slurm\naddress: a:1", "--address counts with --launcher ray only, not with slurm"),
        ("launcher: ray\nsbatch: {qos: x}", "sbatch counts with --launcher slurm only, not with ray"),
        ("- slurm", "cluster.yaml"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_names_the_key(file, tmp_path, text, said):
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError) as error:
        read_options(file, {})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--launcher", "slrum"],
            "launcher slrum is not one of local, ray, slurm (did you mean slurm?), and there is no",
        ),
        (["--partition", "cpu"], "--partition counts with --launcher slurm only, not with local"),
        (["--launcher", "ray", "--time", "5"], "--time counts with --launcher slurm only, not with ray"),
        (["--launcher", "slurm", "--shared"], "--shared counts with --launcher ray only, not with slurm"),
        (["--launcher", "ray", "--cpus", "0"], "cpus=0 is not a positive integer"),
        (
            ["--launcher", "ray", "threads=null"],
            "threads=null: a run on a cluster declares its CPUs: give it threads=N",
        ),
        (["--launcher", "ray", "--cpus", "1", "threads=2"], "--cpus 1 is too small: delta=0.002 has threads=2"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_starts_nothing(tmp_path, capsys, arguments, said):
    root = ["--root", str(tmp_path / "runs")]
    assert main(["experiment", "ablation_delta", "--scale", "quick", "seed=0", *root, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("60", 60), (5, 5), ("1:30", 2), ("2:00:00", 120), ("1-12", 2160), ("1-00:30", 1470), ("1-00:00:01", 1441)],
)
def test_times_are_those_of_slurm(text, expected):
    assert minutes(text) == expected


def test_cpus_are_those_of_the_threads_unless_more_are_declared():
    settings = from_keywords(threads=3)
    assert LauncherOptions("ray").cpus_of(settings) == 3 and LauncherOptions("ray", cpus=5).cpus_of(settings) == 5


@pytest.mark.parametrize("launcher", ["ray", "slurm"])
def test_a_missing_extra_is_one_line(launcher, monkeypatch, tmp_path):
    from trpo_lightning import extras
    from trpo_lightning.experiment.declaration import load_experiment

    monkeypatch.setitem(extras.MODULES, launcher, ("no_such_module_at_all",))
    cells = load_experiment("ablation_delta", "quick").cells(["seed=0"])
    with pytest.raises(UserError) as error:
        run_cells(cells, tmp_path / "runs", options=LauncherOptions(launcher))
    assert str(error.value) == f"--launcher {launcher} needs the extra: pip install 'trpo_lightning[{launcher}]'"
    assert not (tmp_path / "runs").exists()
