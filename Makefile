# `make run` and `make test` do all their own set-up: the environment .venv, made once, and for the
# tests the system packages that only they need. See scripts/ for both.
#
#   make run PYTHON=/usr/bin/python3.12    with another interpreter than the first that fits
#   make test ARGS='-k nodes'              with more arguments for pytest

SHELL := /bin/bash
bin := .venv/bin

SECONDS_EACH := $(or $(SECONDS),60)

.PHONY: help run test test-horovod test-faults check fuzz soak bench-fan-out venv venv-dev clean bench-aggregate

help:
	@echo 'make run     measure a small model on this machine: table, CSV and SVG (first time: 2 minutes)'
	@echo 'make test    run all tests'
	@echo 'make test-horovod  build Horovod in .venv-horovod (10 minutes), and run its tests'
	@echo 'make test-faults  run the tests of faults again and again (ROUNDS=20), until one fails'
	@echo 'make check   look at format, lint and types'
	@echo 'make fuzz    feed every parser with hostile input, for a minute each (SECONDS=60)'
	@echo 'make soak    200 runs in a row: nothing may leak (8 minutes, as root)'
	@echo 'make bench-fan-out  64 nodes opened and stopped, beside pdsh (as root)'
	@echo 'make clean   remove the environment and all that was built; the logs stay'

# Two nodes on this machine; one where there is a single GPU, which two cannot share.
run: venv
	@nodes=2; [ "$$(timeout 20 nvidia-smi -L 2>/dev/null | grep -c '^GPU ')" != 1 ] || nodes=1; \
	set -x; $(bin)/runtest -m deepmnist -n $$nodes -g 1 -b 32

test: venv-dev
	@bash scripts/system-packages sshd=openssh-server ssh=openssh-client ip=iproute2 \
	    unshare=util-linux ps=procps slurmctld=slurm-wlm munged=munge || echo 'tests: those that need them are skipped' >&2
	$(bin)/python -m pytest $(ARGS)

# Horovod builds against older versions of TensorFlow alone: it has an environment of its own.
test-horovod: venv-dev
	@bash scripts/horovod-environment
	HOROVOD_PYTHON=$(CURDIR)/.venv-horovod/bin/python $(bin)/python -m pytest tests/test_horovod.py $(ARGS)

test-faults: venv-dev
	@bash scripts/fault-rounds $(or $(ROUNDS),20) $(ARGS)

check: venv-dev
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy

# Atheris has builds for Linux and few versions of Python: it is no part of what the tests need.
fuzz: venv-dev
	@$(bin)/python -c 'import atheris' 2>/dev/null || $(bin)/python -m pip install -q -e '.[fuzz]' || \
	    { echo 'fuzz: atheris cannot be installed for this Python; 3.11 to 3.13 on Linux have it' >&2; exit 1; }
	@cd tests; for name in $$(../$(bin)/python -m fuzz --names); do \
	    echo "fuzz: $$name, $(SECONDS_EACH) s"; \
	    ../$(bin)/python -m fuzz $$name -max_total_time=$(SECONDS_EACH) 2>&1 | \
	        grep -v '^INFO: \(Instr\|Load\|Using\)' | tail -n 40; [ $${PIPESTATUS[0]} = 0 ] || exit 1; done

soak: venv-dev
	$(bin)/python benchmarks/soak.py $(ARGS)

bench-fan-out: venv-dev
	$(bin)/python benchmarks/fan_out.py $(ARGS)

bench-aggregate: venv-dev
	$(bin)/python benchmarks/aggregate.py $(ARGS)

# Both look for themselves whether there is anything to do.
venv:
	@bash scripts/environment

venv-dev:
	@bash scripts/environment dev

clean:
	rm -rf .venv .venv-horovod build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find launcher perftest models tests -name __pycache__ -prune -exec rm -rf {} +
