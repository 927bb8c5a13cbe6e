# Everything a newcomer needs: `make quickstart` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell for v in 3.12 3.11 3.10; do command -v python$$v >/dev/null && python$$v -c '' 2>/dev/null && echo $$v && break; done)
VENV := .venv
BIN := $(VENV)/bin
ACCELERATOR ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
UV := $(shell command -v uv 2>/dev/null || echo $(VENV)-uv/bin/uv)
DATA ?= $(XT_DATA)
STAMP := $(VENV)/.$(ACCELERATOR)
# Without compiled files each of the many processes that the tests start would compile torch anew: half a minute each.
unexport PYTHONDONTWRITEBYTECODE
# One more than cores, since tests wait for processes that they start; each takes up to 2 GB.
TEST_PROCESSES ?= $(shell n=$$(nproc); echo $$((n < 8 ? n + 1 : 8)))
PACKAGES := $(patsubst %/__init__.py,%,$(wildcard */__init__.py))

.PHONY: help env env-dev quickstart test lint check docs bench slow gpu-libraries results bench-train lock format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

quickstart: $(STAMP) ## a calibrated answer, then training, measuring and a page, small: quickstart/report/report.html
	$(BIN)/xt quickstart --out quickstart

# One thread a process in the first run: it has more processes than cores.
test: $(STAMP)-dev ## run the tests
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m 'not alone'
	$(BIN)/python -m pytest -m alone $$(grep -lr --include='*.py' 'pytest.mark.alone' tests)

lint: $(STAMP)-dev .types ## ruff, mypy, and the import rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.types $(BIN)/mypy --explicit-package-bases --namespace-packages $(addprefix -p xt.,$(filter-out model_repository,$(PACKAGES)))
	$(BIN)/lint-imports

check: lint test ## lint, then test: what has to pass

docs: $(STAMP)-dev ## write the generated parts of docs/ anew
	$(BIN)/python -m tests.reference

bench: $(STAMP) ## measure the bundled encoder, served and in process, on this machine
	test -f results/repository/encoder/xt.json || $(BIN)/xt export multilingual-e5-small --out results/repository
	$(BIN)/xt bench --repository results/repository --encoder multilingual-e5-small --force --out results/bench

slow: $(STAMP)-dev ## claims broken on purpose, attacks, faults, restarts, half an hour of mixed load; with DATA=folder also fairness (50 minutes)
	test -f results/repository/encoder/xt.json || $(BIN)/xt export multilingual-e5-small --out results/repository
	$(BIN)/python -m tests.mutations
	$(BIN)/python -m tests.attack.run results/repository/encoder --out docs/attacks.md
	$(BIN)/python -m tests.serve.soak results/repository --minutes 30
	$(BIN)/python -m tests.serve.restarts results/repository
	$(if $(DATA),$(BIN)/python -m tests.serve.fairness results/repository --seconds 600 --data $(DATA))

gpu-libraries: $(UV) requirements/gpu.txt ## show, without a GPU, that the CUDA provider's libraries are found (8 GB in .venv-gpu)
	[ -x .venv-gpu/bin/python ] || $(UV) venv -q --python $(PYTHON) .venv-gpu
	VIRTUAL_ENV=.venv-gpu $(UV) pip install -q --no-deps --require-hashes -r requirements/gpu.txt
	VIRTUAL_ENV=.venv-gpu $(UV) pip install -q --no-deps -e .
	.venv-gpu/bin/python deploy/gpu_libraries.py --provider cuda --also tensorrt

results: $(STAMP)-dev ## train on every kind of task, before and after on Tatoeba, SIB-200 zero-shot (an hour; DATA=folder)
	$(BIN)/xt study run transfer $(if $(DATA),--data-dir $(DATA)) --out results/transfer

bench-train: $(STAMP) ## tokens per second of xt train against transformers' Trainer
	$(BIN)/xt study run training-speed $(if $(DATA),--data-dir $(DATA)) --force --out results/training-speed

format: $(STAMP)-dev ## format the code
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

lock: ## write the hashed requirement locks anew
	for a in cpu gpu; do for d in "" dev; do \
	  uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.10 -q \
	    --override requirements/override.txt \
	    --extra $$a --extra quickstart --extra train --extra serve --extra quantize $${d:+--extra emoji --extra mteb --extra dev} pyproject.toml -o requirements/$$a$${d:+-dev}.txt || exit 1; \
	done; done
	uv pip compile --generate-hashes --no-header --no-annotate -q --python-version 3.12 --python-platform x86_64-manylinux_2_39 \
	  deploy/requirements-serve-gpu.in -o requirements/serve-gpu.txt
	uv pip compile --generate-hashes --no-header --no-annotate -q --python-version 3.11 --python-platform x86_64-manylinux_2_35 \
	  deploy/requirements-serve-cpu.in -o requirements/serve-cpu.txt

env: $(STAMP) ## make the environment (.venv)
env-dev: $(STAMP)-dev ## make the environment with the tools for tests and lint

$(UV):
	@[ -n "$(PYTHON)" ] || { echo "xt needs Python 3.10, 3.11 or 3.12; found none on PATH." >&2; exit 1; }
	python$(PYTHON) -m venv $(VENV)-uv && $(VENV)-uv/bin/pip install -q uv

$(STAMP): $(UV) requirements/$(ACCELERATOR).txt pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "xt needs Python 3.10, 3.11 or 3.12; found none on PATH." >&2; exit 1; }
	[ -x $(BIN)/python ] || $(UV) venv -q --python $(PYTHON) $(VENV)
	VIRTUAL_ENV=$(VENV) $(UV) pip install -q --no-deps --require-hashes -r requirements/$(ACCELERATOR).txt
	VIRTUAL_ENV=$(VENV) $(UV) pip install -q --no-deps -e .
	@touch $@

$(STAMP)-dev: $(STAMP) requirements/$(ACCELERATOR)-dev.txt
	VIRTUAL_ENV=$(VENV) $(UV) pip install -q --no-deps --require-hashes -r requirements/$(ACCELERATOR)-dev.txt
	@touch $@

.types:
	mkdir -p .types/xt && cd .types/xt && for name in $(PACKAGES); do ln -sfn ../../$$name $$name; done

clean: ## remove the environment and what was built
	rm -rf $(VENV) $(VENV)-uv .venv-gpu .types quickstart results/bench results/repository *.egg-info .mypy_cache .ruff_cache .pytest_cache
