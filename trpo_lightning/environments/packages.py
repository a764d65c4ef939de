"""Which package registers an id that gymnasium does not know, and what its environments need."""

import importlib.util
import re

import gymnasium as gym

PACKAGES = {
    r"(dm_control|dm_control_multiagent)/": ("shimmy", "shimmy[dm-control]"),
    r"bsuite/": ("shimmy", "shimmy[bsuite]"),
    r"popgym-": ("popgym", "trpo_lightning[memory]"),
    r"MiniGrid-Memory": ("minigrid", "trpo_lightning[memory]"),
    r"(MiniGrid|BabyAI)-": ("minigrid", "minigrid"),
    r"MiniWorld-": ("miniworld", "miniworld"),
    r"MiniHack-": ("minihack", "minihack"),
    r"NetHack": ("nle", "nle"),
    r"(Fetch(Reach|Push|Slide|PickAndPlace)|HandReach|HandManipulate|AdroitHand|FrankaKitchen|PointMaze|AntMaze)": (
        "gymnasium_robotics",
        "gymnasium-robotics",
    ),
    r"Panda(Reach|Push|Slide|PickAndPlace|Stack|Flip)": ("panda_gym", "panda-gym"),
    r"Meta-World/": ("metaworld", "metaworld"),
    r"Safety\w+-v\d": ("safety_gymnasium", "safety-gymnasium"),
    r"(highway|merge|roundabout|parking|intersection|racetrack|exit|two-way|u-turn)(-fast|-continuous)?-v\d": (
        "highway_env",
        "highway-env",
    ),
    r"mo-|deep-sea-treasure": ("mo_gymnasium", "mo-gymnasium"),
    r"FlappyBird-": ("flappy_bird_gymnasium", "flappy-bird-gymnasium"),
    r"\w+BulletEnv-": ("pybullet_envs_gymnasium", "pybullet-envs-gymnasium"),
    r"Crafter": ("crafter", "crafter"),
    r"procgen": ("procgen", "procgen"),
}
"""Patterns of ids, each with the module that registers them and the package to install."""

WRAPPERS = {
    "minigrid": "env.wrappers=[minigrid.wrappers:FlatObsWrapper]",
    "PyFlyt": "PyFlyt.gym_envs.FlattenWaypointEnv(env, context_length=2) in a function that env.id=module:name names",
}
"""Packages whose observations are no vectors, each with the wrapper of its own that makes them so."""


def wrapper_of_package(env: gym.Env) -> str:
    """What makes vectors of an environment's observations, where its package has that; empty for others."""
    return WRAPPERS.get(type(env.unwrapped).__module__.partition(".")[0], "")


def missing_package(module: str, env_id: str) -> str:
    """What to install for an id that names a known package's module; empty if it is there, or unknown."""
    for pattern, (known, package) in PACKAGES.items():
        if module == known and re.match(pattern, env_id) and importlib.util.find_spec(module) is None:
            return f"it comes with another package: pip install '{package}'"
    return ""


def package_hint(env_id: str) -> str:
    """What to do about an unregistered id, if a known package registers ids like it; empty for other ids."""
    if game := re.match(r"(\w+?)(NoFrameskip|Deterministic)-v\d", env_id):
        return f"env.id=ALE/{game[1]}-v5 is that game, with settings for its frames (env.frame_skip and so on)"
    for pattern, (module, _) in PACKAGES.items():
        if re.match(pattern, env_id):
            if hint := missing_package(module, env_id):
                return f"{hint}, then env.id={module}:{env_id}"
            return f"name the module that registers it: env.id={module}:{env_id}"
    namespace, slash, _ = env_id.partition("/")
    if not slash:
        return ""
    return f"install the package that brings {namespace}/, and name its module: env.id=MODULE:{env_id}"
