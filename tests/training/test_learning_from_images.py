"""Training from pixels, end to end: learning, checkpoints, resume, evaluation, and what the rollout keeps."""

from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import trpo_lightning
from trpo_lightning import TRPO
from trpo_lightning.errors import UserError
from trpo_lightning.policies.observations import FrameRows, Layout
from trpo_lightning.rollouts.frames import FrameStore
from trpo_lightning.training.batches import make_batch

FORMS = ("stack", "picture", "mixture")
VALUE = {"image_network": "sizes", "convolutions": ["8x4/4"], "hidden_sizes": [16], "epochs": 2}


def module(form, **keywords):
    return TRPO(
        env={"id": "image_environments:Light", "kwargs": {"form": form}, "num_envs": 4},
        steps_per_iteration=256,
        total_env_steps=256 * 100,
        delta=0.05,
        policy={"image_network": "sizes", "convolutions": ["8x4/4"], "hidden_sizes": [16]},
        evaluation={"every": 0},
        **{"value": VALUE, **keywords},
    )


def fit(trpo, tmp_path, iterations=8):
    trainer = pl.Trainer(
        max_epochs=iterations,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        enable_checkpointing=False,
    )
    trainer.fit(trpo)
    return trainer


@pytest.mark.parametrize(
    ("form", "value"),
    [*((form, VALUE) for form in FORMS), ("stack", {"features": "policy", "hidden_sizes": [16], "epochs": 2})],
)
def test_it_learns_from_pixels_and_acts_after_loading(form, value, tmp_path):
    trpo = module(form, value=value)
    fit(trpo, tmp_path)
    assert float(trpo.trainer.callback_metrics["episode/return_mean"]) > 12.0  # chance is 8 of 16
    trpo.save(tmp_path / "policy.pt")
    loaded = trpo_lightning.load(tmp_path / "policy.pt")
    from image_environments import Light

    env = Light(form)
    seen, _ = env.reset(seed=3)
    right = 0
    for _ in range(16):
        action = loaded.act(seen)
        right += action == env.lit
        seen, *_ = env.step(action)
    assert right >= 14
    assert trpo.normalizer.observations.mean.shape == ((2 + 17,) if form == "mixture" else (0,))


@pytest.mark.parametrize(("cell", "form"), [("gru", "picture"), ("lstm", "stack")])
def test_what_was_seen_at_first_is_remembered(cell, form, tmp_path):
    from image_environments import Remembered

    network = {"image_network": "sizes", "convolutions": ["8x4/4"], "hidden_sizes": [16]}
    trpo = TRPO(
        env={"id": "image_environments:Remembered", "kwargs": {"form": form}, "num_envs": 8},
        steps_per_iteration=1024,
        total_env_steps=1024 * 100,
        delta=0.05,
        value={"name": cell, "epochs": 4, **network},
        policy={"name": cell, **network},
        evaluation={"every": 0},
        threads=1,
    )
    fit(trpo, tmp_path, iterations=16)
    assert float(trpo.trainer.callback_metrics["episode/return_mean"]) > 12.0  # without a memory 9
    trpo.save(tmp_path / "policy.pt")
    session, env, right = trpo_lightning.load(tmp_path / "policy.pt").session(), Remembered(form), 0
    for seed in range(8):
        session.reset()
        seen, _ = env.reset(seed=seed)
        for _ in range(16):
            action = session.act(seen)
            right += action == env.lit
            seen, *_ = env.step(action)
    assert right >= 0.75 * 8 * 16


@pytest.mark.parametrize("form", FORMS)
def test_rollouts_keep_bytes_and_batches_make_the_rows_that_the_policy_saw(form):
    trpo = module(form)
    rollout = trpo.collect()
    assert isinstance(rollout.observations, FrameStore)
    estimate = make_batch(rollout, trpo.value_function, trpo.settings, torch.device("cpu"))
    batch = estimate.batch
    assert isinstance(batch.observations, FrameRows) and batch.observations.dtype == torch.uint8
    everything = batch.observations[slice(None)]
    assert (
        everything.shape == batch.observations.shape == (len(batch), *Layout.of(trpo.spec.observation_shape).row_shape)
    )
    order = torch.randperm(len(batch))
    assert torch.equal(batch.observations.index_select(0, order)[slice(3, 7)], everything[order[3:7]])
    assert torch.equal(torch.cat(list(batch.observations.split(100))), everything)
    trpo.scheme.close()


def test_a_stack_is_stored_once_and_episodes_begin_whole():
    trpo = module("stack")
    rollout = trpo.collect()
    store, frame = rollout.observations, 20 * 20
    steps, envs = rollout.valid.shape
    episodes = envs * (1 + steps // 17)
    # one frame for each step, and three for each first stack
    assert store.nbytes - store._index.nbytes == frame * (envs * (steps + 1) + 2 * episodes)
    trpo.scheme.close()


def test_stores_give_back_what_was_put_in_whatever_the_environment_does():
    g = np.random.default_rng(0)
    layout = Layout.of((3, 5, 7))  # 35 bytes a frame, no multiple of 8
    store, put = FrameStore(40, 2, layout), []
    rows = g.integers(0, 256, (2, 3, 5, 7), dtype=np.uint8)
    for t in range(40):
        kind = g.integers(3)
        if kind == 0:  # new
            rows = g.integers(0, 256, (2, 3, 5, 7), dtype=np.uint8)
        elif kind == 1:  # shifted in one environment only
            rows = rows.copy()
            rows[0] = np.concatenate([rows[0, 1:], g.integers(0, 256, (1, 5, 7), dtype=np.uint8)])
        else:  # the environment reuses its buffer
            rows[:, :-1] = rows[:, 1:].copy()
            rows[:, -1] = 7
        store.put(t, rows)
        put.append(rows.copy())
    expected = np.array(put)
    found = store.rows(None, torch.device("cpu"))[slice(None)].numpy().reshape(expected.shape)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(store[np.array([3, 39]), np.array([1, 0])], expected[[3, 39], [1, 0]])


def test_a_failed_update_keeps_its_frames(tmp_path):
    from trpo_lightning.training.failed_update import capture, read_failed_update

    trpo = module("stack", kl_slack=1e-12)
    rollout = trpo.collect()
    batch = make_batch(rollout, trpo.value_function, trpo.settings, torch.device("cpu")).batch
    trpo.scheme.close()
    result = trpo.update(batch)
    assert result.rejection_reason is not None
    seed = trpo._update_generator(0).initial_seed()
    capture(trpo, rollout, batch, result, generator_seed=seed).write(tmp_path / "failed.pt")
    again = read_failed_update(tmp_path / "failed.pt")
    assert isinstance(again.batch.observations, FrameRows)
    assert torch.equal(again.batch.observations[slice(None)], batch.observations[slice(None)])
    assert again.update(again.settings).metrics == result.metrics


@pytest.mark.parametrize("form", FORMS)
def test_a_population_sees_images(form):
    network = {"image_network": "sizes", "convolutions": ["4x4/4"], "hidden_sizes": []}
    env = {"id": "image_environments:Light", "kwargs": {"form": form}, "num_envs": 4, "max_episode_steps": 16}
    rule = {"name": "cem", "population": 4}
    trpo = TRPO(env=env, rule=rule, rollout={"scheme": "population"}, policy=network)
    rollout = trpo.collect()
    trpo.normalizer.merge(*rollout.statistics())
    trpo.scheme.close()
    assert rollout.returns.shape == (4,) and len(set(rollout.returns.tolist())) > 1


def test_what_is_said_before_training():
    from gymnasium import spaces

    from trpo_lightning.environments.spaces import notes

    mixed = spaces.Dict({"camera": spaces.Box(0, 255, (64, 48, 3), np.uint8), "arm": spaces.Box(-1, 1, (7,))})
    assert notes(mixed, "x") == (
        "env.id=x: image of 64 x 48 with 3 channels (last), divided by 255 and not normalized",
        "env.id=x: a vector of 7 beside them",
    )
    (line,) = notes(spaces.Box(0.0, 1.0, (84, 84, 4)), "x")
    assert "(float32 (84, 84, 4)) is a vector of 28,224 numbers: images are uint8" in line
    assert notes(spaces.Box(-1, 1, (7,)), "x") == ()
    _, line = notes(spaces.Box(0, 1, (10, 10, 4), np.uint8), "x")
    assert line.startswith("env.id=x: its pixels end at 1, of which the network sees 1/255: scale them up")


def test_numbers_that_are_not_finite_beside_images_stay_visible():
    from trpo_lightning.rollouts.normalizers import Normalizer
    from trpo_lightning.settings import NormalizeSettings

    layout = Layout.of(((3, 4, 4), (2,)))
    images = np.full((2, 3, 4, 4), 7, dtype=np.uint8)
    rows = layout.pack([images], np.array([[1.0, np.inf], [3.0, 4.0]]))
    normalizer = Normalizer(layout.shape, NormalizeSettings())
    normalizer.merge(np.array([[1.0, 2.0], [3.0, 6.0]]), np.zeros(0))
    seen = normalizer.normalize(rows)
    assert (seen[:, :48] == 7).all() and seen.dtype == np.uint8
    np.testing.assert_allclose(layout.vectors(seen), [[-1.0, np.nan], [1.0, 0.0]])
    assert normalizer.observations.mean.tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"rule": {"reuse": "uniform"}}, "rule.reuse=uniform keeps vectors, not images"),
        ({"policy": {"name": "gru"}, "rule": {"reuse": "uniform"}}, "policy.name=gru does not go with rule.reuse"),
        ({"policy": {"name": "gru"}, "value": {"name": "linear"}}, "value.name=linear does not see images"),
        (
            {"policy": {"name": "gru", "hidden_sizes": [8]}},
            "policy.hidden_sizes=.* does not go with policy.image_network=trpo_2015",
        ),
        (
            {"value": {"name": "lstm", "image_network": "mnih_2015"}},
            "value.image_network: layer 3 .* does not fit: the image of 20 x 20",
        ),
    ],
)
def test_what_sees_no_images_says_so_in_one_line(keywords, message):
    with pytest.raises(UserError, match=message) as refused:
        TRPO(env={"id": "image_environments:Light"}, **keywords)
    assert "\n" not in str(refused.value)


def test_an_environment_of_code_from_a_file_is_made_only_if_asked():
    policy = module("stack").trained_policy()
    with pytest.raises(UserError, match=r"env.id=image_environments:Light names code .* make_env\(own_code=True\)"):
        policy.make_env()
    env = policy.make_env(own_code=True, side=24)
    assert env.reset(seed=0)[0].shape == (3, 24, 24)
    policy.settings.env.id, policy.settings.env.kwargs = "Pendulum-v1", {}
    policy.settings.env.wrappers = ["gymnasium.wrappers:FlattenObservation"]
    assert policy.make_env(render_mode="rgb_array").reset(seed=0)[0].shape == (3,)
    for name in ("somewhere:Else", "gymnasium.wrappers:gym.logger.os.system"):
        policy.settings.env.wrappers = [name]
        with pytest.raises(UserError, match=r"env.wrappers=\S+ names code"):
            policy.make_env()
    policy.settings.env.wrappers = []
    for env_id in ("shutil:os.system", "popgym:popgym-RepeatPreviousEasy-v0"):
        policy.settings.env.id = env_id
        with pytest.raises(UserError, match=f"env.id={env_id} names code"):
            policy.make_env()


def test_images_train_on_one_device():
    with pytest.raises(UserError, match=r"has images, which do not go with devices=2: use devices=1$"):
        module("stack").join(SimpleNamespace(size=2))  # type: ignore[arg-type]
