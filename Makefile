PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint wheel clean train-pocket train-pocket-lfm2 train-pocket-sounds train-aligner
WORK ?= $(CURDIR)/training

demo: .venv/demo.stamp
	$(BIN)/sgpa explain --demo --out demo-output

test: .venv/test.stamp
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

wheel: .venv/made.stamp
	rm -rf dist
	$(PIP) wheel --no-deps --wheel-dir dist .

# All resume where they were stopped, and want the synthesisers: see docs/architecture.md.
train-pocket: $(WORK)/pocket/test.npz
	cd checkpoints && ../$(BIN)/python -m train.pocket --work $(WORK)/pocket
	cd checkpoints && ../$(BIN)/python -m train.pocket --work $(WORK)/pocket --export sgpa_checkpoints/pocket
	cd checkpoints && ../$(BIN)/python -m train.manifest

train-pocket-lfm2: $(WORK)/pocket/test.npz
	cd checkpoints && ../$(BIN)/python -m train.pocket --work $(WORK)/pocket --model pocket-lfm2 --steps 9000
	cd checkpoints && ../$(BIN)/python -m train.pocket --work $(WORK)/pocket --model pocket-lfm2 --steps 9000 --export sgpa_checkpoints/pocket_lfm2
	cd checkpoints && ../$(BIN)/python -m train.manifest

$(WORK)/pocket/test.npz: | .venv/train.stamp
	cd checkpoints && ../$(BIN)/python -m train.commands --out $(WORK)/pocket --utterances 24000
	cd checkpoints && ../$(BIN)/python -m train.commands --out $(WORK)/pocket --utterances 700 --split test

train-pocket-sounds: .venv/train.stamp
	cd checkpoints && ../$(BIN)/python -m train.sounds_data --out $(WORK)/sounds --clips 600 --split test
	cd checkpoints && ../$(BIN)/python -m train.sounds_data --out $(WORK)/sounds --clips 9000
	cd checkpoints && ../$(BIN)/python -m train.sounds --work $(WORK)/sounds --steps 4000
	cd checkpoints && ../$(BIN)/python -m train.sounds --work $(WORK)/sounds --export sgpa_checkpoints/pocket_sounds
	cd checkpoints && ../$(BIN)/python -m train.manifest

train-aligner: .venv/train.stamp
	cd checkpoints && ../$(BIN)/python -m train.aligner --work $(WORK)/aligner
	cd checkpoints && ../$(BIN)/python -m train.manifest

clean:
	rm -rf .venv demo-output dist

.venv/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	@touch $@

# The demo needs no torch: it is only the reference that the tests compare with.
.venv/demo.stamp: pyproject.toml | .venv/made.stamp
	$(PIP) install -e '.[plot]'
	@touch $@

.venv/test.stamp: pyproject.toml | .venv/made.stamp
	$(PIP) install -e '.[test]'
	@touch $@

.venv/train.stamp: pyproject.toml | .venv/made.stamp
	$(PIP) install -e '.[train]'
	@touch $@
