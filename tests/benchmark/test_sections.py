"""What the sections make of measurements: these are made up, so that every number is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trpo_lightning.benchmark import comparisons, growth, pixels, ranks, sections
from trpo_lightning.benchmark.bench import Bench
from trpo_lightning.benchmark.comparisons import SB3, TIANSHOU
from trpo_lightning.benchmark.processes import MeasurementError
from trpo_lightning.benchmark.training_runs import TrainingRun


def a_run(seconds=(9.0, 9.0, 1.0, 1.0), steps=100.0, returned=50.0, late=0.0):
    """A run of iterations of `steps` steps; its reader saw the last row `late` seconds too late."""
    seconds = np.array(seconds)
    columns = {
        "env_steps": steps * np.arange(1, len(seconds) + 1),
        "time/steps_per_second": steps / seconds,
        "time/collect": 0.6 * seconds,
        "time/simulator": 0.3 * seconds,
        "time/inference": 0.2 * seconds,
        "time/value_fit": 0.3 * seconds,
        "time/evaluation": np.full(len(seconds), np.nan),
        "time/overhead": 0.1 * seconds,
        "episode/return_mean": np.full(len(seconds), returned),
        "episode/count": np.full(len(seconds), 100.0),
    }
    return TrainingRun(columns, 5.0, 5.0 + float(seconds[1:-1].sum()) + late)


@pytest.fixture
def bench():
    lines = []
    made = Bench(["A-v1", "B-v1"], ["A-v1"], [1, 2], steps=1000, repeats=2, return_seeds=2, say=lines.append)
    return made


def found(results, subject, quantity):
    (result,) = (r for r in results if r.subject.startswith(subject) and r.quantity == quantity)
    return result


def test_a_run_leaves_out_its_warm_up_and_adds_up_its_parts():
    run = a_run()
    assert run.steps_per_second() == 100.0 and run.steps_per_second(warmup=0) == 400 / 20
    assert run.steps.tolist() == [100.0] * 4 and run.seconds.tolist() == [9.0, 9.0, 1.0, 1.0]
    assert set(run.parts()) == {"collect", "value_fit", "evaluation", "overhead"}
    assert run.part("evaluation").tolist() == [0.0] * 4 == run.part("unknown").tolist()
    assert run.final_return() == 50.0


def test_memories_are_beside_feed_forward_with_the_same_sizes(bench, monkeypatch):
    asked = []

    def train(settings, threads, folder):
        asked.append((settings["env.id"], settings.get("policy.name"), "value.minibatch_size" in settings, threads))
        slow = 10.0 if "policy.name" in settings else 1.0
        return a_run(seconds=[slow] * 4)

    monkeypatch.setattr(sections, "train", train)
    results = sections.memory(bench)
    assert {("A-v1", None, True, 1), ("A-v1", "gru", False, 1), ("A-v1", "lstm", False, 1)} == set(asked)
    assert found(results, "A-v1", "feed-forward, training").values == (100.0, 100.0)
    assert found(results, "A-v1", "gru, training").values == (10.0, 10.0)
    assert found(results, "A-v1", "lstm, value fit").values == (3.0, 3.0)


def test_the_ceiling_is_training_over_the_environments_alone(bench, monkeypatch):
    asked = []

    def train(settings, threads, folder):
        asked.append(("train", settings["env.id"], threads))
        if settings["env.id"] == "B-v1" and threads == 2:
            raise MeasurementError("it broke")
        return a_run(steps=80.0 if threads == 1 else 60.0)

    def measure(program, threads, folder):
        env = program[program.index("--env") + 1]
        asked.append(("alone", env, threads))
        assert program[program.index("--num-envs") + 1] == "32" and program[program.index("--steps") + 1] == "1000"
        return {"steps_per_second": 100.0}

    monkeypatch.setattr(sections, "train", train)
    monkeypatch.setattr(sections, "measure", measure)
    results = sections.ceiling(bench)
    assert asked[:4] == [("alone", "A-v1", 1), ("train", "A-v1", 1), ("alone", "A-v1", 2), ("train", "A-v1", 2)]
    assert asked[8:12] == asked[:4] and len(asked) == 15  # two repeats in turns, the broken one once
    one, two = (found(results, f"A-v1, {n}", "ceiling ratio") for n in ("1 thread", "2 threads"))
    assert one.values == pytest.approx((0.8, 0.8)) and one.target.limit == 0.75 and one.verdict == "met"
    assert two.values == pytest.approx((0.6, 0.6)) and two.target.limit == 0.65 and two.verdict == "missed"
    assert found(results, "B-v1, 2", "ceiling ratio").verdict == "not measured"
    assert bench.notes == ["B-v1, 2, training was not measured: it broke"]


def test_settings_count_steps_after_the_warm_up_and_fit_the_environments(bench):
    settings = bench.settings("A-v1")
    assert settings["env.id"] == "A-v1" and settings["total_env_steps"] == 1000 + 2 * 4096
    bench.num_envs = 100
    assert bench.settings("A-v1")["rollout.steps_per_iteration"] == 4000
    assert bench.settings("A-v1", {"rollout.steps_per_iteration": 8, "env.num_envs": 8})["env.num_envs"] == 8


def fake_peers(monkeypatch, broken=None):
    commands = []

    def install(peer, folder):
        if peer is broken:
            raise MeasurementError("no such version")

    def measure(program, threads, folder):
        commands.append(program)
        return {"steps_per_second": 20.0, "return_mean": 25.0, "versions": {"x": "1"}}

    monkeypatch.setattr(comparisons.peer_environment, "install", install)
    monkeypatch.setattr(comparisons, "measure", measure)
    monkeypatch.setattr(comparisons, "train", lambda settings, threads, folder: a_run())
    return commands


def test_peers_do_as_many_iterations_as_ours_at_the_same_sizes(bench, monkeypatch):
    commands = fake_peers(monkeypatch)
    results = comparisons.peers(bench)
    assert found(results, "A-v1, 2 threads", "ours / sb3-contrib TRPO").values == (5.0, 5.0)
    assert [r.target.limit for r in results if r.target] == [4.0, 3.0]
    sb3 = next(c for c in commands if c[2].endswith(SB3.script))
    options = dict(zip(sb3[3::2], sb3[4::2], strict=True))
    expected = {"--env": "A-v1", "--num-envs": "8", "--steps-per-iteration": "2048", "--minibatch": "128"}
    assert expected.items() <= options.items()
    assert options["--iterations"] == "3" and options["--warmup"] == "2" and options["--threads"] == "2"
    tianshou = next(c for c in commands if c[2].endswith(TIANSHOU.script))
    assert "1024" in tianshou and "--minibatch" not in tianshou
    assert bench.versions == {"sb3-contrib TRPO": {"x": "1"}, "Tianshou TRPO": {"x": "1"}}


def test_a_peer_that_is_not_there_is_noted_and_the_rest_goes_on(bench, monkeypatch):
    fake_peers(monkeypatch, broken=SB3)
    results = comparisons.peers(bench)
    assert {r.quantity for r in results if r.target} == {"ours / Tianshou TRPO"}
    assert bench.notes == ["sb3-contrib TRPO is left out, it could not be installed: no such version"]


def test_returns_of_which_there_are_none_are_noted(bench, monkeypatch):
    fake_peers(monkeypatch)
    none = {"steps_per_second": 20.0, "return_mean": None, "versions": {}}
    monkeypatch.setattr(comparisons, "measure", lambda program, threads, folder: none)
    assert comparisons.returns(bench) == []
    assert len(bench.notes) == 2 and "no episode ended within so few steps" in bench.notes[0]


def test_returns_have_a_value_for_each_seed(bench, monkeypatch):
    fake_peers(monkeypatch)
    results = comparisons.returns(bench)
    ours = found(results, "A-v1", "return of ours, settings of sb3-contrib TRPO")
    assert ours.values == (50.0, 50.0)
    assert found(results, "A-v1", "mean return, ours / sb3-contrib TRPO").values == (2.0,)


def test_two_runs_side_by_side_count_together(bench, monkeypatch):
    seen = []

    def together(settings, threads, folder):
        seen.append((threads, [s.get("seed") for s in settings]))
        return [a_run(steps=90.0), a_run(steps=80.0)]

    monkeypatch.setattr(sections, "train", lambda settings, threads, folder: a_run())
    monkeypatch.setattr(sections, "train_together", together)
    results = sections.experiments(bench)
    assert seen == [(1, [None, 1])] * 2
    assert found(results, "A-v1", "two runs / one run").values == pytest.approx((1.7, 1.7))


def test_the_profile_shares_out_all_seconds_and_checks_them(bench, monkeypatch):
    monkeypatch.setattr(sections, "train", lambda settings, threads, folder: a_run(late=1.1))
    results = sections.profile(bench)
    shares = {r.quantity: r.median for r in results if r.target is None}
    assert shares["time/simulator"] == pytest.approx(30) and shares["the rest of time/collect"] == pytest.approx(10)
    assert sum(shares.values()) == pytest.approx(100)
    (deviation,) = (r for r in results if r.target)
    assert deviation.median == pytest.approx(100 * (1 - 10 / 11.1)) and deviation.verdict == "missed"


def test_a_start_is_timed_until_the_first_row(bench, monkeypatch):
    def train(settings, threads, folder, shortest):
        assert (settings["rollout.steps_per_iteration"], settings["total_env_steps"], shortest) == (32, 1, 1)
        return a_run(seconds=(1.0,))

    monkeypatch.setattr(sections, "train", train)
    monkeypatch.setattr(sections, "start", lambda command, threads, folder: command)
    monkeypatch.setattr(sections, "finish", lambda process: "")
    monkeypatch.setattr(sections.time, "perf_counter", lambda: 2.0)
    results = sections.startup(bench)
    assert results[1].values == (3.0, 3.0) and results[1].target.limit == 6.0
    assert results[0].values == (0.0, 0.0)


def test_the_update_is_told_in_multiples_of_a_gradient(bench, monkeypatch):
    costs = {"gradient": [0.002, 0.001, 0.003], "fisher_vector_product": [0.004] * 3, "update": [0.02] * 3}
    monkeypatch.setattr(growth, "measure", lambda program, threads, folder: costs)
    monkeypatch.setattr(growth, "train", lambda settings, threads, folder: a_run(seconds=(9.0, 0.02, 0.04, 0.06)))
    results = growth.update(bench)
    assert [(r.values[0], r.verdict) for r in results if r.target] == [
        (pytest.approx(2.0), "met"),
        (pytest.approx(10.0), "missed"),
        (pytest.approx(4.0), "met"),
    ]


def test_pixels_are_compared_with_the_emulator_alone_and_memory_is_asked(bench, monkeypatch):
    asked = []

    def measured(program, threads, folder):
        asked.append(program)
        return {"peak_gib": 2.0} if any("pixels" in part for part in program) else {"steps_per_second": 200.0}

    monkeypatch.setattr(pixels, "has_extra", lambda name: True)
    monkeypatch.setattr(pixels, "measure", measured)
    monkeypatch.setattr(growth, "measure", measured)
    monkeypatch.setattr(pixels, "train", lambda settings, threads, folder: a_run(steps=130.0))
    results = pixels.pixels(bench)
    one = found(results, "ALE/Pong-v5, the paper's 33,458 parameters, envpool, 2 threads", "ceiling ratio")
    assert one.values == (0.65, 0.65) and one.target.limit == 0.6
    assert found(results, "ALE/Pong-v5, 84 x 84 pixels, gymnasium, 1 thread", "ceiling ratio").target is None
    memory = found(results, "ALE/Pong-v5, 84 x 84", "peak memory of an iteration of 100,000 steps")
    assert memory.values == (2.0,) and memory.target.limit == 3.5
    assert any('"env.frame_size": [52, 40]' in part for program in asked for part in map(str, program))
    monkeypatch.setattr(pixels, "has_extra", lambda name: False)
    assert pixels.pixels(bench) == [] and "the extra atari is missing" in bench.notes[-1]


def test_reuse_measures_iterations_that_have_all_their_batches(bench, monkeypatch):
    def train(settings, threads, folder):
        batches = settings.get("rule.reuse_batches", 1)
        assert settings["total_env_steps"] > (batches + 2) * settings["rollout.steps_per_iteration"]
        return a_run(seconds=[9.0] * batches + [0.1 + 0.05 * batches] * 3 + [9.0])

    monkeypatch.setattr(growth, "train", train)
    results = growth.reuse(bench)
    seconds = [r.median for r in results if r.unit == "s"]
    assert seconds == pytest.approx([0.15, 0.2, 0.3, 0.5])
    assert [r.median for r in results if r.unit == "x"] == pytest.approx([0.2 / 0.15, 2.0, 0.5 / 0.15])


def test_growth_measures_all_sizes_and_notes_what_fails(bench, monkeypatch):
    asked = []

    def train(settings, threads, folder):
        asked.append((settings["env.num_envs"], settings["rollout.steps_per_iteration"]))
        if settings["env.num_envs"] == 1000:
            raise MeasurementError("too many")
        per_iteration = settings["rollout.steps_per_iteration"]
        assert settings["total_env_steps"] < 4 * per_iteration
        return a_run(seconds=[1e-4 * per_iteration] * 4, steps=0.9 * per_iteration)

    monkeypatch.setattr(growth, "train", train)
    monkeypatch.setattr(growth, "measure", lambda program, threads, folder: {"peak_gib": 2.0})
    bench.max_batch = 2**16
    results = growth.growth(bench)
    assert asked[:4] == [(32, 2**11), (32, 2**13), (32, 2**15), (32, 2**16)]
    assert all(steps % envs == 0 for envs, steps in asked)
    deviation, memory, counts = (r for r in results if r.target)
    assert deviation.median < 1e-9 and memory.values == (2.0,)
    assert counts.values == pytest.approx((1.0,))
    assert bench.notes == ["1000 environments on A-v1 was not measured: too many"]
    assert sum("policy of" in r.quantity for r in results) == 4


def test_without_a_gpu_its_section_is_a_note(bench, monkeypatch):
    monkeypatch.setattr(growth, "measure", lambda program, threads, folder: {"cpu": 1.0})
    assert growth.gpu(bench) == []
    assert bench.notes == ["no GPU here: its section is skipped"]


def test_with_a_gpu_both_devices_are_compared(bench, monkeypatch):
    programs = []

    def measure(program, threads, folder):
        programs.append(program)
        return {"cpu": 6.0, "cuda": 2.0, "gpu": "A GPU"}

    monkeypatch.setattr(growth, "measure", measure)
    monkeypatch.setattr(growth, "train", lambda settings, threads, folder: a_run())
    results = growth.gpu(bench)
    assert found(results, "A GPU", "CPU / GPU").values == (3.0,)
    assert [p[p.index("--rows") + 1] for p in programs] == ["64", str(2**20)]
    assert found(results, "A-v1", "training, gpu").values == (100.0, 100.0)


def test_two_ranks_are_measured_and_more_are_calculated(bench, monkeypatch):
    def train(settings, threads, folder):
        run = a_run(steps=150.0 if settings["devices"] == 2 else 100.0)
        assert threads == settings["devices"]
        shares = {f"time/{name}": 0.1 * run.seconds for name in ("advantages", "gradient", "cg", "line_search")}
        return TrainingRun({**run.columns, **shares, "ranks/seconds": 0.2 * run.seconds}, 0.0, 0.0)

    monkeypatch.setattr(ranks, "train", train)
    monkeypatch.setattr(ranks, "measure", lambda *_: {"1": 1e-3, "4096": 2e-3, "65536": 3e-3, "1048576": 5e-3})
    networks = {"policy": torch.nn.Linear(9, 100), "value_function": torch.nn.Linear(9, 100)}
    module = SimpleNamespace(**networks, spec=SimpleNamespace(observation_shape=(3,)))
    monkeypatch.setattr(ranks, "_module", lambda environment: module)
    results = ranks.ranks(bench)
    assert found(results, "A-v1", "2 ranks / 1 rank").median == 1.5
    assert found(results, "A-v1", "update, 2 ranks, 1 thread each").median == pytest.approx(700.0)
    assert found(results, "A-v1", "of it exchanges and waits of 2 ranks, a whole iteration").median == pytest.approx(
        200.0
    )
    assert found(results, "2 processes", "all-reduce of 1 numbers").median == 1.0
    efficiencies = [r.median for r in results if r.subject.endswith("256 on each rank") and r.unit == "%"]
    assert len(efficiencies) == 8 and all(0.0 < x < 100.0 for x in efficiencies)
    assert efficiencies[:4] == sorted(efficiencies[:4], reverse=True)
    alone = [r.median for r in results if r.subject.endswith("256 in all") and r.unit == "%"]
    assert len(alone) == 8 and all(0.0 < x < 100.0 for x in alone)
