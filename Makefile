# `make search` runs the main job, `make test` the everyday tests, lint and type checks,
# `make test-all` every test, `make docs` builds the documentation into site/, and
# `make notebooks` the notebooks into notebooks/made/.
# Each works from a bare checkout: it makes its own environment in .venv first.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
# Large pages for what is allocated anew at every step (docs/speed.md).
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: install search mnist docs notebooks test test-all test-core test-lowest onnx lint format clean

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
CORE := tests/groups tests/fields tests/kernels tests/layers tests/morphism

install: .venv/experiments.done

search: .venv/experiments.done
	$(BIN)/eqjax evolve $(ARGS)

mnist: .venv/experiments.done
	$(BIN)/eqjax mnist

notebooks: $(patsubst notebooks/%.py,notebooks/made/%.html,$(wildcard notebooks/*.py))

notebooks/made/%.html: notebooks/%.py .venv/notebooks.done
	mkdir -p $(@D)
	$(BIN)/python -m jupytext --to ipynb --output $(basename $@).ipynb $<
	$(BIN)/python -m nbconvert --to notebook --execute --inplace $(basename $@).ipynb
	$(BIN)/python -m nbconvert --to html $(basename $@).ipynb

test: .venv/dev.done lint
	$(PYTEST) -m "not slow" --one-in 10 $(ARGS)

test-all: .venv/dev.done lint
	$(PYTEST) $(ARGS)

# The core, on another Python: make test-core PYTHON=python3.13.
test-core:
	test -x .venv-core/bin/python || $(PYTHON) -m venv .venv-core
	.venv-core/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	.venv-core/bin/python -m pytest -n 2 -m "not slow" --one-in 10 $(CORE) $(ARGS)

# The same with the oldest versions that setup.cfg allows.
test-lowest: .venv/dev.done
	$(BIN)/python -m uv venv --quiet --clear --python $(PYTHON) .venv-lowest
	$(BIN)/python -m uv pip install --quiet --python .venv-lowest --resolution lowest-direct -e '.[dev]'
	.venv-lowest/bin/python -m pytest -n 2 -m "not slow" --one-in 10 $(CORE) $(ARGS)

docs: .venv/docs.done
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

# ONNX has an environment of its own: its exporter asks for an older orbax-checkpoint.
onnx:
	test -x .venv-onnx/bin/python || $(PYTHON) -m venv .venv-onnx
	.venv-onnx/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,onnx]'
	.venv-onnx/bin/python -m pytest tests/exchange/test_exporting.py -k onnx $(ARGS)

lint: .venv/dev.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/dev.done
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/%.done: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"eqjax needs Python 3.11 or later, got {v.major}.{v.minor}; pass PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	touch $@

clean:
	rm -rf .venv .venv-core .venv-lowest .venv-onnx build notebooks/made site *.egg-info .pytest_cache .mypy_cache .ruff_cache
