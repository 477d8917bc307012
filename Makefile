# `make help` lists the targets. CI calls the same ones.

PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The retry guide's variables, handed on to the command line tool in the environment, so that no shell ever parses their
# values. `value` keeps a `$` in them as it is.
GUIDE_VARIABLES := repo task_name actor_provider actor_id actor_display execution_id attempt \
  task_id core_url dev_user auth_token TASK_ID REPO PROMPT MESSAGE_BODY
$(foreach name,$(GUIDE_VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),\
  $(eval override $(name) := $$(value $(name)))$(eval export $(name))))

# What the caller has set wins over .local/env.
LOAD_ENV = if [ -f .local/env ]; then own=$$(export -p); set -a; . ./.local/env; set +a; eval "$$own"; fi

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run demo test test-unit crash-matrix up infra reset down status verify verify-security bench chart chart-test docs screenshots dist lock format clean \
  seed-failed-implementation retry-worker-execution send-sqs

help:  ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z.-]+:.*## / {printf "  %-28s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Everything at once

run: $(INSTALLED)  ## start everything, run three demo tasks, show them live, serve until Ctrl-C
	@$(BIN)/python -m devstack.run

demo: $(INSTALLED)  ## the same, then exit: 0 when every task ended as it should
	@$(BIN)/python -m devstack.run --exit

test: $(INSTALLED)  ## the whole suite, on real components
	@$(BIN)/python -m devstack binaries
	@$(BIN)/python -m pytest -n auto tests/unit tests/property tests/model
	@$(BIN)/python -m pytest -n 3 --dist loadfile tests/integration tests/e2e tests/chart tests/browser

test-unit: $(INSTALLED)  ## the tests that need nothing but Python
	@$(BIN)/python -m pytest -n auto tests/unit

crash-matrix: $(INSTALLED)  ## crash at every durable step, check what must hold; ONLY= OCCURRENCES= PAUSE_SECONDS= JOBS=
	@$(BIN)/python -m devstack binaries
	@$(BIN)/python -m tests.crash

# Piece by piece

up: $(INSTALLED)  ## start control plane, Redis and AWS in the background, write .local/env
	@$(BIN)/python -m devstack up

infra: $(INSTALLED)  ## create custom resource definitions, queues and bucket
	@$(BIN)/python -m devstack infra

reset: $(INSTALLED)  ## empty executions, queues, bucket and our Redis keys
	@$(BIN)/python -m devstack reset

down: $(INSTALLED)  ## stop what `make up` started
	@$(BIN)/python -m devstack down

status: $(INSTALLED)  ## say what runs
	@$(BIN)/python -m devstack status

# The retry guide

seed-failed-implementation: $(INSTALLED)  ## write a failed execution; repo= task_name= actor_...= execution_id= attempt=
	@$(LOAD_ENV); $(BIN)/alakai seed --from-env

retry-worker-execution: $(INSTALLED)  ## ask the API for a retry; task_id= core_url= dev_user= or auth_token=
	@$(LOAD_ENV); $(BIN)/alakai retry --from-env

send-sqs: $(INSTALLED)  ## send a task to the queue; TASK_ID= REPO= PROMPT= or MESSAGE_BODY=
	@$(LOAD_ENV); $(BIN)/alakai send --from-env

# Working on it

verify: $(INSTALLED)  ## lint, types, import rules, unused code, locks and generated pages up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/python -m devstack.lock --check
	$(BIN)/python -m devstack.chart --check
	$(BIN)/python -m devstack.reference --check
	$(BIN)/hadolint Dockerfile examples/worker/Dockerfile

verify-security: $(INSTALLED)  ## bandit, pip-audit, schemathesis on the running API; EXAMPLES= per route (100)
	@test -x $(VENV)/security/bin/schemathesis || $(BIN)/uv venv --quiet --python $(BIN)/python $(VENV)/security
	@$(BIN)/uv pip sync --python $(VENV)/security/bin/python --quiet --require-hashes requirements/security.txt
	@$(BIN)/python -m devstack.security $(abspath $(VENV)/security/bin) $(EXAMPLES)

format: $(INSTALLED)  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)  ## measure; figures, no gates
	@$(BIN)/python -m bench

screenshots: $(INSTALLED)  ## take the pictures of the dashboard page in docs/images/ anew, in a real Chromium
	@$(BIN)/python -m devstack.screenshots

docs: $(INSTALLED)  ## make the reference pages anew, build the site of docs/ into site/; a broken link fails
	@$(BIN)/python -m devstack.reference
	@test -x $(VENV)/docs/bin/mkdocs || $(BIN)/uv venv --quiet --python $(BIN)/python $(VENV)/docs
	@$(BIN)/uv pip sync --python $(VENV)/docs/bin/python --quiet --require-hashes requirements/docs.txt
	@NO_MKDOCS_2_WARNING=true $(VENV)/docs/bin/mkdocs build --strict
	@echo "The site is in site/: open site/index.html" >&2

dist: $(INSTALLED)  ## build the wheels into dist/, with their checksums
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .
	$(BIN)/python -m build --wheel --no-isolation --outdir dist worker
	cd dist && $(abspath $(BIN))/python -c 'import hashlib, pathlib; [print(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}") for p in sorted(pathlib.Path().glob("*.whl"))]' > SHA256SUMS

lock: $(INSTALLED)  ## make requirements/ anew from pyproject.toml; UPGRADE=1 takes newer versions
	@$(BIN)/python -m devstack.lock $(if $(UPGRADE),--upgrade)

chart: $(INSTALLED)  ## make what of the chart follows from values.yaml, the settings and crds/ anew
	@$(BIN)/python -m devstack.chart

chart-test: $(INSTALLED)  ## the chart, on all versions of Kubernetes, installed and run
	@$(BIN)/python -m devstack binaries
	@ALAKAI_CHART=full $(BIN)/python -m pytest tests/chart

clean:  ## stop the stack and remove what was made here (the cache of binaries stays)
	@if [ -d .local ]; then $(BIN)/python -m devstack down; fi
	rm -rf $(VENV) .local dist site build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# The virtual environment, made again when a lock or a project file changes.
$(INSTALLED): requirements/uv.txt requirements/dev.txt pyproject.toml worker/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, $(PYTHON) is %d.%d: make PYTHON=python3.11" % sys.version_info[:2])'
	@echo "Installing into $(VENV): about a minute the first time." >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(BIN)/uv pip sync --python $(BIN)/python --quiet --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps -e . -e worker
	@touch $@
