"""Checks that a rollout fits into memory before any of it is allocated."""

from pathlib import Path

from trpo_lightning.environments.spaces import bytes_of_a_number
from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.errors import UserError
from trpo_lightning.policies.observations import Layout
from trpo_lightning.rollouts.frames import bytes_of_images
from trpo_lightning.settings import RunSettings, reuses
from trpo_lightning.settings.sampling import PathSettings

COPIES = 24
"""Bytes that an iteration holds per number of its observations, besides the raw one: float32 batches, and float64
differences and squares for the normalizer (measured with 10,000 numbers: 23 for float32, 27 for float64)."""
CGROUP = Path("/sys/fs/cgroup")


def check_memory(settings: RunSettings, spec: EnvironmentSpec) -> str | None:
    """Return a warning if an iteration's observations take more than half of the available memory, else None.

    Raises:
        UserError: They do not fit at all; the message names what to reduce.
    """
    available, rollout = available_memory(), settings.rollout
    if not isinstance(rollout, PathSettings) or available is None:
        return None
    layout, steps = Layout.of(spec.observation_shape), rollout.steps_per_iteration
    numbers = layout.vector + layout.image_bytes
    per_number = COPIES + (bytes_of_a_number(spec.spaces[0]) if spec.spaces and not layout.images else 8)
    per_step = layout.vector * per_number + bytes_of_images(layout)
    batches = _batches(settings)
    per_step *= batches
    needed = per_step * steps
    if needed < available / 2:
        return None
    fitting = int(available / 2 / per_step) // settings.env.num_envs * settings.env.num_envs
    advice = f"use {fitting} or fewer" if fitting else "use fewer, and fewer environments (env.num_envs)"
    of_them = "of them take" if batches == 1 else f"of them, in {batches} batches, take"
    line = (
        f"env.id={settings.env.id}: observations of {numbers:,} numbers: rollout.steps_per_iteration={steps} {of_them} "
        f"about {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB are available: {advice}, or make them smaller"
    )
    if needed > available:
        raise UserError(line)
    return line


def _batches(settings: RunSettings) -> int:
    """The most batches that are learned from at once."""
    return settings.rule.reuse_batches if reuses(settings.rule) else 1


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping, within a container's limit; None if the system does not say."""
    found = [value for value in (_of_machine(), _of_container()) if value is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _of_container() -> int | None:
    """What a cgroup's limit leaves; without one it reads `max`. Version 2, which containers see as their own root."""
    try:
        limit, used = ((CGROUP / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        return int(limit) - int(used)
    except (OSError, ValueError):
        return None
