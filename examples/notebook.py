# %% [markdown]
# # TRPO in a notebook
#
# Cells begin with `# %%`: VS Code, PyCharm and Jupytext open this file as a notebook, and Python runs it as a program.

# %%
import csv

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
{name: round(float(module.row[name]), 3) for name in ("episode/return_mean", "trust_region/kl", "policy/entropy")}

# %% [markdown]
# ## An experiment
#
# Runs go to separate processes, one for each core; what has run already is not run again.

# %%
results = run_experiment("quickstart", arguments=["name=cartpole", "seed=0", "total_env_steps=10_000"])
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
figure.savefig("runs/notebook.png")
figure
