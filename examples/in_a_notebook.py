# %% [markdown]
# # TRPO in a notebook
#
# ruff: noqa: B018, D100
# Cells begin with `# %%`: VS Code, PyCharm and Jupytext open this file as a notebook, and Python runs it as a program.

# %%
import csv
import math

import pytorch_lightning as pl
from matplotlib.figure import Figure

from trpo_lightning import TRPO
from trpo_lightning.experiment import run_experiment

# %% [markdown]
# ## A run in this process
#
# Another `fit` continues where the first one ended.

# %%
module = TRPO("Pendulum-v1", num_envs=8, steps_per_iteration=1600, total_env_steps=20_000)
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
pl.Trainer(max_epochs=4, **quiet).fit(module)
names = "episode/return_mean", "trust_region/kl", "policy/entropy"
{name: round(float(module.row.get(name, math.nan)), 3) for name in names}  # no return where no episode ended

# %% [markdown]
# ## An experiment
#
# Runs go to separate processes, one for each core; what has run already is not run again.

# %%
chosen = ["name=cartpole", "seed=0", "total_env_steps=10_000"]
results = run_experiment("quickstart", arguments=chosen, root="runs/notebook")
for result in results:
    print(result.state, result.run_dir)

# %% [markdown]
# ## A figure from its record

# %%
with open(results[0].run_dir / "metrics.csv", encoding="utf-8", newline="") as file:
    rows = [row for row in csv.DictReader(file) if row["episode/return_mean"]]
figure = Figure(figsize=(5, 3), layout="constrained")
axes = figure.add_subplot(xlabel="env steps", ylabel="mean return")
axes.plot([int(row["env_steps"]) for row in rows], [float(row["episode/return_mean"]) for row in rows])
figure.savefig("runs/notebook/returns.png")
figure
