# Each target makes .venv by itself: a fresh clone needs nothing but Python 3.11 or 3.12 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := runs/digits
BUDGET ?= cpu

.PHONY: demo test test-slow bench lint docs clean

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

# The main job in minutes: train on 8x8 digits, evaluate held-out ones, compare Joint with Nested.
demo: $(STAMP)
	$(BIN)/jiio fit --config tasks/digits.yaml --overwrite
	$(BIN)/jiio test --config tasks/digits.yaml --ckpt_path $(RUN)/checkpoints/last.ckpt
	$(BIN)/jiio compare --config tasks/digits.yaml --ckpt_path $(RUN)/checkpoints/last.ckpt --samples 16 --repeats 1
	@echo "pictures: $(RUN)/images/test.png (target above reconstruction), $(RUN)/compare/cost_over_time.png, $(RUN)/compare/residuals.png"

# The fast tests: five to ten minutes on two cores.
test: $(STAMP)
	$(BIN)/python -m pytest

# The others; those of the real data need JIIO_SHARED_DATA, the folder where they are, and are skipped without it.
test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# The paper's tables and figures: reproduce-table1, reproduce-fig3, reproduce-all ...; BUDGET=smoke|cpu|gpu|paper.
reproduce-gpu-first-hour: BUDGET = gpu
reproduce-%: $(STAMP)
	$(BIN)/python -m experiments $* --budget $(BUDGET)

# What the machinery costs, and the frontier of solvers on the nets of the tables: results/frontier.md.
bench: $(STAMP)
	$(BIN)/python -m experiments overhead
	$(BIN)/python -m experiments frontier --budget $(BUDGET)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation, as pages in site/ that need no network.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) runs build site *.egg-info
