# Every target sets up .venv by itself, once; a change of the requirement files sets it up again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH ?= 2.13.0
BOUNDED := $(addprefix backends/symtorch-,torchgp sparse gplearn) $(addprefix reducers/symtorch-,pca projection)
PROJECTS := pyproject.toml $(wildcard backends/*/pyproject.toml reducers/*/pyproject.toml plugins/*/pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint bounds mutants fuzz schema docs bench studies clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

venv: $(STAMP) ## set up .venv with every distribution of the repository

$(STAMP): requirements-dev.txt $(PROJECTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# What builds the distributions is installed once, not in a fresh environment for each of them.
	$(BIN)/python -m pip install "hatchling>=1.26" "editables>=0.5"
	$(BIN)/python -m pip install --no-build-isolation -r requirements-dev.txt
	touch $@

demo: $(STAMP) ## train two small networks and turn them into equations
	$(BIN)/symtorch demo

lint: $(STAMP) ## ruff, the layers of the core, and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

test: lint ## lint, then every test; pass more with PYTEST_ARGS="-k front"
	$(BIN)/pytest $(PYTEST_ARGS)

bounds: ## run the quick tests with the oldest versions that pyproject.toml allows
	test -x .venv-bounds/bin/python || $(PYTHON) -m venv .venv-bounds
	$(PYTHON) tests/lower_bounds.py $(TORCH) > .venv-bounds/constraints.txt
	.venv-bounds/bin/python -m pip install -r .venv-bounds/constraints.txt hatchling editables gplearn pytest-timeout
	.venv-bounds/bin/python -m pip install --no-deps $(addprefix -e ,. $(BOUNDED))
	.venv-bounds/bin/pytest -m "not slow and not study" tests symtorch_core $(BOUNDED) \
	    --ignore tests/test_house.py --ignore tests/test_third_party.py

mutants: $(STAMP) ## measure how many changes of a room its tests notice: ROOM=search; LAST=3 for a tenth of them
	$(BIN)/python -m pip install -q "mutmut>=3.8"
	$(BIN)/python tests/mutants.py $(ROOM) --last "$(LAST)"

fuzz: $(STAMP) ## hostile input for everything that reads, and 200 kills of searches: an hour; SECONDS=600 SEED=7
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(or $(SECONDS),3600) --jobs 2 --seed $(or $(SEED),$(shell date +%s))
	$(BIN)/python tests/fuzz/kills.py --kills 200

schema: $(STAMP) ## write the JSON schema of saved results to docs/
	$(BIN)/python -c "from symtorch_core.results import records; print(records.describe_file(), end=str())" > docs/result.schema.json

bench: $(STAMP) ## run every benchmark in benchmarks/
	$(BIN)/python -m pip install -q -r benchmarks/requirements.txt
	@set -e; for file in benchmarks/*.py; do \
	    test -e "$$file" || { echo "There is no benchmark yet."; break; }; \
	    echo "== $$file"; $(BIN)/python "$$file"; \
	done

docs: ## what there is to read
	@echo "There is no site yet. What there is to read: README.md, CONTRIBUTING.md, and in docs/examples:"
	@ls docs/examples

studies: $(STAMP) ## run every study at laptop scale; hours, and stopped runs go on
	$(BIN)/symtorch run pinn --problem all --seeds 3 --out studies/pinn
	$(BIN)/symtorch run gnn --force all --variant all --out studies/gnn
	$(BIN)/symtorch run arithmetic --task all --model oracle --out studies/arithmetic-oracle
	$(BIN)/symtorch run arithmetic --task all --model erring-oracle --out studies/arithmetic-erring-oracle
	$(BIN)/symtorch run arithmetic --task all --out studies/arithmetic
	@set -e; data=$${SYMTORCH_DATA:-../shared/data}; \
	if test -d "$$data/stories260K"; then \
	    $(BIN)/symtorch run llm --model "$$data/stories260K" --text "$$data/text/tinystories_slice_197KB.txt" \
	        --opening 'Once upon|One day' --length 257 --step 257 --mark --layers 1,2,3 \
	        --k-in 16 --k-out 8 --recipe all --epochs 6 --seeds 3 \
	        --out studies/llm; \
	else echo "no trained language model in $$data (SYMTORCH_DATA says where): the study llm is left out"; fi
	@set -e; data=$${SYMTORCH_DATA:-../shared/data}; models=$$SYMTORCH_MODELS; wiki="$$data/wikitext-2"; \
	if test -z "$$models" || ! test -d "$$wiki"; then \
	    echo "SYMTORCH_MODELS names no folder of language models, or $$wiki is not there: their studies are left out"; exit 0; \
	fi; \
	texts="--text $$wiki/valid.txt --eval $$wiki/test.txt"; \
	large="$$models/qwen2.5-coder-1.5b-instruct"; small="$$models/qwen2.5-coder-0.5b-instruct"; \
	$(BIN)/symtorch run llm --preset paper --regressor operon --timeout 5 --tokens 40000 --passes 3 --no-sweep --dtype fast \
	    --model "$$large" $$texts --out studies/llm-paper; \
	$(BIN)/symtorch run llm --preset laptop --model "$$large" $$texts --others "$$data/text/tinyshakespeare.txt" \
	    --out studies/llm-1.5b; \
	$(BIN)/symtorch run llm --preset laptop --layers auto --budget 0.1 --frontier --recipe best --model "$$small" $$texts \
	    --out studies/llm-0.5b-auto; \
	$(BIN)/symtorch run llm --preset laptop --layers 6,12,18 --model "$$small" $$texts --out studies/llm-0.5b; \
	$(BIN)/symtorch run llm --preset laptop --layers 4,9,14 --model "$$models/gemma3-270m" $$texts --out studies/llm-gemma; \
	for name in qwen2.5-coder-0.5b-instruct qwen2.5-coder-1.5b-instruct gemma3-270m; do \
	    $(BIN)/symtorch run arithmetic --task all --model "$$models/$$name" --questions 221 --out "studies/arithmetic-$$name"; \
	done

clean: ## remove .venv and every cache
	rm -rf $(VENV) .venv-bounds .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
