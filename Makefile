# The targets that a newcomer needs; `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test soak lint bottlenecks image_dir bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/installed  ## handwritten digits: make photos, retrain on them, label new ones
	$(BIN)/python examples/digits.py

test: $(VENV)/installed-tools  ## run the tests (no network needed)
	$(BIN)/python -m pytest

soak: $(VENV)/installed-tools  ## kill, corrupt and race caches at length (10 minutes)
	RETRAIN_SOAK=1 $(BIN)/python -m pytest -v tests/test_killed.py tests/test_damage.py \
	  tests/test_faults.py tests/test_races.py tests/bottlenecks/photos/test_hostile_images.py

lint: $(VENV)/installed-tools  ## ruff's checks and format, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bottlenecks: IMAGE_DIR ?= Dataset
bottlenecks: image_dir $(VENV)/installed  ## stage one alone: make bottlenecks [IMAGE_DIR=Dataset] [ARGS="--flag ..."]
	$(BIN)/python -m bottlenecks --image_dir='$(subst ','\'',$(IMAGE_DIR))' $(ARGS)
image_dir:
	@test -e './$(subst ','\'',$(IMAGE_DIR))' -o -e '$(subst ','\'',$(IMAGE_DIR))' || { \
	  echo 'error: there is no folder $(subst ','\'',$(IMAGE_DIR));' \
	  'name yours: make bottlenecks IMAGE_DIR=FOLDER' >&2; exit 2; }

ifdef WEIGHTS
bench: $(VENV)/installed-bench  ## measure (a day): make bench IMAGE_DIR=Dataset WEIGHTS=FILE [ALSO="Dataset2 ..."]
	$(BIN)/python benchmarks/run.py '$(IMAGE_DIR)' '$(WEIGHTS)' --also $(ALSO) $(ARGS)
else
bench:
	@echo 'error: name photos and weights: make bench IMAGE_DIR=Dataset WEIGHTS=FILE' >&2; exit 2
endif

clean:  ## remove what make made; caches, graphs and photos of yours stay
	rm -rf $(VENV) build demo_data *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find bottlenecks retrain label_image tests examples -name __pycache__ -prune -exec rm -rf {} +

# Stamps: installed again only when what is installed changes.
$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-tools: $(VENV)/installed
	$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(PIP) --editable '.[bench]'
	@touch $@
