# `make search` runs the main job, `make test` the tests, lint and type checks, `make mnist`
# fetches the full MNIST into data/, and `make docs` builds the documentation into site/.
# Each works from a bare checkout: it makes its own environment in .venv first.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
# Large pages for what is allocated anew at every step (docs/speed.md).
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: search mnist test docs onnx lint format clean

search: .venv/experiments.done
	$(BIN)/python -m experiments.evolve $(ARGS)

mnist: .venv/experiments.done
	$(BIN)/python -m experiments.data.fetch

test: .venv/dev.done lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

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
	rm -rf .venv .venv-onnx build site *.egg-info .pytest_cache .mypy_cache .ruff_cache
