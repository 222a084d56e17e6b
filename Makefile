# Registrar's front door. `make` alone prints what there is.
.DEFAULT_GOAL := help
.SHELLFLAGS := -eu -o pipefail -c
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A virtual environment without byte code costs every process seconds of start-up.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Registrar needs Python 3.11 or newer, this is %d.%d; set PYTHON=" % sys.version_info[:2]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	@echo "$(CURDIR)" > $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/registrar.pth
	@printf '#!%s\nimport sys\nfrom app.cli import main\nsys.exit(main())\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/registrar && chmod +x $(BIN)/registrar
	@$(BIN)/python -m compileall -q $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || true
	@touch $@

.PHONY: install
install: $(VENV)/.installed ## Make the virtual environment from requirements.lock

.PHONY: demo
demo: install ## Register 2,500 synthetic devices end to end, with real parts
	@$(BIN)/python -m app.cli demo

.PHONY: up
up: install ## Run the service on this machine (SANDBOX=1 adds the Microsoft simulator)
	@$(BIN)/python -m app.cli up $(if $(SANDBOX),--sandbox)

.PHONY: lint
lint: install ## ruff, mypy strict, import-linter, plain English
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.architecture.plain_english

.PHONY: format
format: install ## Let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: test
test: install ## All tests, on real PostgreSQL and Valkey (ARGS="-n 0 -k consent" for a few)
	$(BIN)/pytest -n auto --dist worksteal $(ARGS)

.PHONY: drawn
drawn: install ## The tests that draw inputs by chance, with many of them (ARGS="--hypothesis-seed=7")
	DRAW=all $(BIN)/pytest -n auto --dist worksteal -m drawn $(ARGS)

.PHONY: contract
contract: install ## Lint the OpenAPI document, make clients of it, place an order with one (needs npm)
	@$(BIN)/python -m tests.clients

.PHONY: drills
drills: install ## Upgrade beside the release before, and restore after losing everything
	$(BIN)/pytest -n auto tests/drills $(ARGS)

.PHONY: chaos
chaos: install ## Real processes under injected faults (SEEDS=10; ARGS="--seed 7")
	@$(BIN)/python -m tests.chaos --seeds $(or $(SEEDS),10) $(ARGS)

.PHONY: attacks
attacks: install ## One partner against an installation, with its neighbour measured (ARGS="--seconds 10 calls")
	@$(BIN)/python -m tests.attacks $(ARGS)

.PHONY: bench
bench: install ## Benchmarks, each beside its bound of the same run (ARGS="intake backlog")
	@$(BIN)/python -m tests.benchmarks $(ARGS)

.PHONY: fuzz
fuzz: install ## Coverage-guided fuzzing of the readers and the hash decoder (SECONDS=60 each)
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(ARGS)

.PHONY: lock
lock: ## Recompile the lock files from pyproject.toml (needs uv on PATH)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -o requirements.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements.lock -o deploy/requirements.lock

.PHONY: image
image: install ## Build both images and run deploy/compose.yaml with podman (as root, on Debian)
	@PYTHON=$(BIN)/python tests/images/image.sh $(ARGS)

.PHONY: image-digests
image-digests: ## Print the images of deploy/compose.yaml by digest, for deploy/.env (asks their registries)
	@sed -nE 's/^#?((PYTHON|POSTGRES|VALKEY)_IMAGE)=([^@]+)(@.*)?$$/\1 \3/p' deploy/env.example | while read -r name image; do \
	  digest=$$(docker buildx imagetools inspect "$$image" --format '{{.Manifest.Digest}}'); \
	  echo "$$name=$$image@$$digest"; \
	done

.PHONY: clean
clean: ## Remove the virtual environment and caches (never the data directory)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
