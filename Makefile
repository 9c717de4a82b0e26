PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

CONTAINER_ENGINE ?= $(notdir $(firstword $(shell for name in podman docker; do command -v $$name; done)))
REGISTRY ?=
TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BASE_IMAGE ?= docker.io/library/python:3.11.14-slim-bookworm
TRAINING_BASE_IMAGE ?= $(BASE_IMAGE)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TRAINING_TORCH_INDEX ?=
SOURCE ?=
PIP_CONF ?=
CA_BUNDLE ?=
BUILD_FLAGS ?=

.PHONY: demo papers test lint bench images clean

demo: $(VENV)/.ready  ## both tasks end to end on synthetic CT
	@$(BIN)/hounsfield demo

papers: $(VENV)/.ready  ## both papers' experiments at a reduced size on synthetic CT
	@$(BIN)/hounsfield papers

test: $(VENV)/.ready-test  ## the test suite
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

lint: $(VENV)/.ready-test  ## style, types and architecture, on the installed wheel
	@.ci/lint $(BIN)

bench: $(VENV)/.ready-test  ## ratios against other libraries
	@for script in $(filter-out benchmarks/timing.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script; done

images:  ## the container images (variables: images/README.md)
	@test -n "$(CONTAINER_ENGINE)" || { echo "podman or docker is needed to build images"; exit 1; }
	$(call build,hounsfield-python,Containerfile,--target cpu,$(BASE_IMAGE),$(TORCH_INDEX))
	$(call build,hounsfield-training-python,Containerfile,--target training,$(TRAINING_BASE_IMAGE),$(TRAINING_TORCH_INDEX))
	$(call build,hounsfield-mlflow,mlflow.Containerfile,,$(BASE_IMAGE),)

# name, file, target, base image, index of torch
build = $(CONTAINER_ENGINE) build --file images/$(2) $(3) --tag $(if $(REGISTRY),$(REGISTRY)/)$(1):$(TAG) \
	--build-arg BASE_IMAGE=$(4) $(if $(5),--build-arg TORCH_INDEX=$(5)) --build-arg VERSION=$(TAG) \
	--build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null) --build-arg SOURCE=$(SOURCE) \
	$(if $(PIP_CONF),--secret id=pip_conf$(comma)src=$(PIP_CONF)) \
	$(if $(CA_BUNDLE),--secret id=ca_bundle$(comma)src=$(CA_BUNDLE)) $(BUILD_FLAGS) .
comma := ,

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
