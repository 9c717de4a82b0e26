PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo papers test lint bench clean

demo: $(VENV)/.ready  ## both tasks end to end on synthetic CT
	@$(BIN)/hounsfield demo

papers: $(VENV)/.ready  ## both papers' experiments at a reduced size on synthetic CT
	@$(BIN)/hounsfield papers

test: $(VENV)/.ready-test  ## the test suite
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(VENV)/.ready-test  ## style, types and architecture, on the installed wheel
	@.ci/lint $(BIN)

bench: $(VENV)/.ready-test  ## ratios against other libraries
	@for script in $(filter-out benchmarks/timing.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script; done

clean:  ## everything that make made
	rm -rf $(VENV) build dist runs *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing hounsfield and its pinned dependencies into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --constraint constraints.txt --editable . >$(VENV)/install.log 2>&1 || { tail -n 20 $(VENV)/install.log; exit 1; }
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready images/katib-client.txt
	@echo "installing the test tools into $(VENV)"
	@$(BIN)/python -m pip install --constraint constraints.txt --editable '.[test,lint,bench]' >$(VENV)/install.log 2>&1 || { tail -n 20 $(VENV)/install.log; exit 1; }
	@$(BIN)/python -m pip install --no-deps --requirement images/katib-client.txt >>$(VENV)/install.log 2>&1 || { tail -n 20 $(VENV)/install.log; exit 1; }
	@touch $@
