# Everything a checkout can do. Each target makes its own virtual environment from the pins; PYTHON=python3.13 selects
# another interpreter, which gets an environment of its own (.venv-3.13).

PYTHON ?=
ifeq ($(strip $(PYTHON)),)
INTERPRETER := python3
VENV := .venv
else
INTERPRETER := $(PYTHON)
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
BIN := $(VENV)/bin
PINS := constraints.txt pyproject.toml .ci/venv
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo demo-cluster test check lint types layers docs examples site package bench torture torture-cluster simulate pins clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | column -t -s '|'

demo: $(VENV)/.pins-run ## January 2013 at three airports: killed in the middle, and the books balance (ARGS=--all: the whole year)
	@$(BIN)/python -m examples.flights $(ARGS)

demo-cluster: $(VENV)/.pins-dev ## the same on three processes and a NATS server: one is killed, one stands still, and the books balance
	@$(BIN)/python -m examples.flights.cluster $(ARGS)

test: $(VENV)/.pins-dev ## every test but the long ones, and the examples of README.md and docs/
	$(BIN)/python -m pytest $(ARGS)

check: lint types layers site test ## everything that must hold before a change goes in

lint: $(VENV)/.pins-dev ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.pins-dev ## two type checkers, strict, and all that is public is typed
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/python .ci/typed

layers: $(VENV)/.pins-dev ## imports point down
	$(BIN)/lint-imports --no-logo --no-cache

docs: examples site ## the examples are executed, and the site is built into build/site

examples: $(VENV)/.pins-dev ## the examples in README.md and docs/ are executed
	$(BIN)/python -m pytest README.md docs -p no:cacheprovider $(ARGS)

site: $(VENV)/.pins-docs ## the documentation as HTML and Markdown; a broken link is an error
	$(BIN)/python .ci/site

package: $(VENV)/.pins-dev ## the wheel builds, installs and runs
	.ci/package $(BIN)/python

bench: $(VENV)/.pins-dev ## each workload beside its physical limit and its peers (QUICK=1: a look; ONLY=name: some rows)
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(ONLY),--only '$(ONLY)') $(ARGS)

torture: $(VENV)/.pins-dev ## the long runs: kills at hundreds of random instants
	$(BIN)/python -m pytest -m torture --timeout=0 $(ARGS)

torture-cluster: $(VENV)/.pins-dev ## nodes, servers, disks and ways between them at random under load for SECONDS (300); the counts go to benchmarks/faults.jsonl
	CLUSTER_SECONDS=$(or $(SECONDS),300) $(BIN)/python -m pytest -m torture --timeout=0 -s tests/cluster/test_torture.py $(ARGS)

simulate: $(VENV)/.pins-dev ## storms over simulated clusters, a seed each (SEEDS=2000; FIRST=0; WITHIN=480: seconds; ARGS='--seed 7': one again)
	$(BIN)/python -m tests.simulation.run --seeds $(or $(SEEDS),2000) --first $(or $(FIRST),0) $(if $(WITHIN),--within $(WITHIN)) $(ARGS)
	$(if $(ARGS),,$(BIN)/python -m tests.simulation.run --adapters --seeds $(or $(SEEDS),2000) --first $(or $(FIRST),0) $(if $(WITHIN),--within 60))

pins: ## new pins: the newest of everything, tried out by `make check` afterwards
	.ci/pins $(INTERPRETER)

clean: ## environments, caches and what the runs left behind
	rm -rf .venv .venv-* .demo .bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.pins-run: $(PINS)
	@.ci/venv $(VENV) run $(INTERPRETER)

$(VENV)/.pins-dev: $(PINS)
	@.ci/venv $(VENV) dev $(INTERPRETER)

$(VENV)/.pins-docs: $(VENV)/.pins-dev
	@.ci/venv $(VENV) docs $(INTERPRETER)
