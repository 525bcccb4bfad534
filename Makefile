# `make` alone lists what there is. Recipes of more than a line are scripts in tools/.
#
#   PYTHON=...  the interpreter for .venv (default: the first Python >= 3.11 on PATH)
#   ARGS=...    more arguments for pytest, meson test or the benchmark
#   JOBS=...    parallel jobs (default 2)

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
export PYTHON JOBS

.PHONY: help setup build demo test test-all test-matrix test-c test-py test-web lint format asan tsan \
	stress fuzz-short bench bench-overhead bench-pair bench-exactness bench-stacks bench-observer \
	bench-memory bench-startup bench-native bench-native-stacks bench-reports bench-where bench-symbols bench-sampled \
	bench-estimates bench-live bench-attach bench-watch bench-kills bench-service bench-instructions \
	bench-sampled-pair bench-sampled-memory bench-web soak \
	docs clean

help:       ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile

setup:      ## virtual environment and packages, if they are not there
	@tools/setup.sh

build: setup  ## build the package and install it into .venv, if a source changed
	@tools/build.sh

demo: build  ## record a data-processing job, show its summary, write the HTML report
	@tools/demo.sh

test: test-c test-py test-web  ## every test, on this interpreter

test-all: build test-c  ## every test, on CPython 3.11 to 3.15
	@tools/test_all.sh $(ARGS)

test-matrix: build  ## the tests that depend on the interpreter, on the others of CPython 3.11 to 3.15, two at once
	@PIECE=1 LANES=$(or $(LANES),2) tools/test_all.sh $(ARGS)

test-c: setup  ## the C unit tests
	@tools/test_c.sh plain $(ARGS)

test-py: build  ## the Python and end-to-end tests
	@tools/test_py.sh .venv $(ARGS)

test-web:   ## the viewer's tests, where there is npm
	@tools/test_web.sh

lint: setup  ## layers, formatting, types, warnings
	@tools/lint.sh

format: setup  ## rewrite Python and C sources in the project's style
	@tools/format.sh

asan: setup  ## the C unit tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@tools/test_c.sh asan $(ARGS)

tsan: setup  ## the C unit tests under ThreadSanitizer
	@tools/test_c.sh tsan $(ARGS)

stress: build  ## threads, forks, libraries, starts and stops at once, for minutes (STORM_SECONDS)
	@PYMEMTRACE_STORM_SECONDS=$(or $(STORM_SECONDS),300) tools/test_py.sh .venv tests/e2e/test_storm.py $(ARGS)

fuzz-short: setup  ## replay the fuzzers' corpus and mutate it for some seconds, under ASan
	@tools/test_c.sh asan --suite fuzz $(ARGS)

bench: build  ## every measurement, with short settings; ARGS=--full for publishing
	@.venv/bin/python bench/run.py $(ARGS)

bench-overhead: build  ## CPU time added to each workload, against other profilers
	@.venv/bin/python bench/overhead.py $(ARGS)

bench-pair: build  ## ns added to a malloc + free pair, on each interpreter
	@.venv/bin/python bench/pair.py $(ARGS)

bench-exactness: build  ## live bytes against tracemalloc, in total and per line
	@.venv/bin/python bench/exactness.py $(ARGS)

bench-stacks: build  ## recorded stacks against a full walk, in random programs
	@.venv/bin/python bench/stacks.py $(ARGS)

bench-observer: build  ## allocations of the program itself, recorded against not
	@.venv/bin/python bench/observer.py $(ARGS)

bench-memory: build  ## memory of the recorder
	@.venv/bin/python bench/memory.py $(ARGS)

bench-startup: build  ## what recording adds to start and exit
	@.venv/bin/python bench/startup.py $(ARGS)

bench-native: build  ## the native layer: cost of malloc + free, known truth, libraries
	@.venv/bin/python bench/native.py $(ARGS)

bench-native-stacks: build  ## what native frames in the stacks cost per record
	@.venv/bin/python bench/native_stacks.py $(ARGS)

bench-estimates: build  ## estimates of sampled recordings against the truth: bias, coverage
	@.venv/bin/python bench/estimates.py $(ARGS)

bench-sampled: build  ## CPU time that a sampled recording adds
	@.venv/bin/python bench/sampled.py $(ARGS)

bench-sampled-pair: build  ## ns that a sampled recording adds to a malloc + free pair
	@.venv/bin/python bench/sampled_pair.py $(ARGS)

bench-sampled-memory: build  ## memory of a sampled recording, heaps of 10 MB to 4 GB
	@.venv/bin/python bench/sampled_memory.py $(ARGS)

bench-instructions: build  ## instructions that a sampled recording adds (valgrind)
	@.venv/bin/python bench/instructions.py $(ARGS)

bench-web: build  ## CPU per request of Django and FastAPI, sampled, and latency
	@.venv/bin/python bench/web.py $(ARGS)

soak: build  ## a sampled recording for an hour (SOAK_SECONDS): does anything drift?
	@.venv/bin/python bench/soak.py --seconds $(or $(SOAK_SECONDS),3600) $(ARGS)

bench-reports: build  ## time, memory and size of the reports on a long run
	@.venv/bin/python bench/reports.py $(ARGS)

bench-where: build  ## what of the resident memory stays unattributed
	@.venv/bin/python bench/where.py $(ARGS)

bench-symbols: build  ## looking 10,000 native addresses up
	@.venv/bin/python bench/symbols.py $(ARGS)

bench-live: build  ## what being watched by `pymemtrace live` costs, how fresh its screen is
	@.venv/bin/python bench/live.py $(ARGS)

bench-watch: build  ## what being watched by `pymemtrace watch` costs, what watching costs
	@.venv/bin/python bench/watch.py $(ARGS)

bench-kills: build  ## boxes of processes killed at random moments, by SIGKILL and by a memory limit
	@.venv/bin/python bench/kills.py $(ARGS)

bench-service: build  ## web services in production mode under load, workers killed at random, for 30 minutes
	@.venv/bin/python bench/service.py $(ARGS)

bench-attach: build  ## for how long a process stands still that is attached to
	@.venv/bin/python bench/attach.py $(ARGS)

docs: setup  ## check the links of the documentation
	@.venv/bin/python tools/check_links.py

clean:      ## remove what was built; keeps .venv's packages and the interpreters
	@rm -rf build dist .venv*/.built .mypy_cache .ruff_cache .pytest_cache
