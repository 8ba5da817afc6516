# sharl needs Python >= 3.10 and make; everything else is installed into .venv by the first target that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

STOCK := .venv-stock
SB3 := .venv-sb3
BUFFERS := .venv-buffers
MLAGENTS_1_1 := .mlagents-1.1
# a file stays together, for the runs that its tests share; in their order: the last ones take little time
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
# who waits for whom cannot be seen beside other tests
QUIET := tests/process/test_replay_ratio.py

.PHONY: setup train test thorough test-mlagents-1.1 lint type stress learning bench

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

train: setup
	$(BIN)/python -m scripts.train ddpg

test: setup
	$(PYTEST) --ignore $(QUIET)
	$(BIN)/python -m pytest $(QUIET)

thorough: setup
	$(PYTEST) -m "thorough and not slow" --timeout 300 --ignore $(QUIET)
	$(BIN)/python -m pytest -m "thorough and not slow" $(QUIET)

# pip refuses this version on most Pythons, and what it asks for is older than all else here; the link needs neither
test-mlagents-1.1: setup $(MLAGENTS_1_1)/.ready
	PYTHONPATH=$(MLAGENTS_1_1) $(PYTEST) -m "not slow" tests/envproc/unity tests/process/test_unity.py

$(MLAGENTS_1_1)/.ready:
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python \
		--target $(MLAGENTS_1_1) mlagents-envs==1.1.0
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: setup
	$(BIN)/mypy

stress: setup
	$(BIN)/python -m pytest -m slow -s --timeout 1800

learning: setup
	$(BIN)/python -m pytest -m learning -s --timeout 3600

bench: setup $(STOCK)/.ready $(SB3)/.ready $(BUFFERS)/.ready
	$(BIN)/python -m scripts.profile ring --buffers $(BUFFERS)/bin/python
	$(BIN)/python -m scripts.profile act
	$(BIN)/python -m scripts.profile learner --sb3 $(SB3)/bin/python
	$(BIN)/python -m scripts.profile worker
	$(BIN)/python -m scripts.profile link --stock $(STOCK)/bin/python
	$(BIN)/python -m scripts.profile joined
	$(BIN)/python -m scripts.profile control

# ML-Agents' link as pip gives it: what ours is measured against
$(STOCK)/.ready:
	$(PYTHON) -m venv $(STOCK)
	$(STOCK)/bin/pip install --quiet --disable-pip-version-check mlagents-envs==0.28.0 protobuf==3.20.3 numpy==2.4.6 setuptools
	touch $@

# Stable-Baselines3: what the updates of our algorithms are measured against
$(SB3)/.ready:
	$(PYTHON) -m venv $(SB3)
	$(SB3)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 stable-baselines3==2.9.2 sb3-contrib==2.9.2
	touch $@

# packaged replay buffers: what the ring is measured against. One that cannot be installed here is left out
$(BUFFERS)/.ready:
	$(PYTHON) -m venv $(BUFFERS)
	$(BUFFERS)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
	for each in cpprb==11.0.0 stable-baselines3==2.9.2 tianshou==2.0.1 torchrl==0.14.1; do \
		$(BUFFERS)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 $$each \
		|| echo "$$each cannot be installed here"; done
	touch $@
