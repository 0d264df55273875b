# make setup    .venv with everything; demo, test, bench, lint and fuzz call it
# make demo     a receiver that retrains on its own decisions while its channel drifts, about 20 s
# make test     the tests, doctests included
# make test-peers  the programs that tests/peers compares with (Debian's packages; needs root or
#               sudo), and the tests that do; `make test` runs those whose program is there
# make bench    throughput and latency, side by side with peers; writes bench/RESULTS.md
# make figures  errors of all detectors on all channels and of all trackers on all models: pictures,
#               JSON and tables in figures/; detectors 20 minutes on one core, trackers hours;
#               ARGS=--quick: minutes; ARGS='trackers --jobs 4': one part, 4 cores
# make peers    the Python packages that the bench compares with; it runs without them, too, and
#               compares with GNU Radio where Debian's package gnuradio is installed
# make lint     ruff and mypy
# make fuzz     900 000 damaged messages into the wire codec
# make clean    remove caches and builds; .venv, runs/ and models/ stay
#
# On Linux, PyPI's torch brings CUDA. For the CPU build give pip the index that torch's own
# installation page names: make setup PIP_ARGS='--extra-index-url ...'

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
PEERS := .venv/.peers

# one thread per process: frames are short, and workers are processes of their own
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export NUMBA_NUM_THREADS := 1

.PHONY: setup demo test test-peers bench figures peers lint fuzz clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet $(PIP_ARGS) \
		--editable '.[train,bench,dev]'
	touch $@

demo: setup
	$(BIN)/kalvit run viterbinet_fading

test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-peers: setup
	.ci/peers
	$(BIN)/python -m pytest tests/peers -rs

peers: $(PEERS)

$(PEERS): $(READY)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet $(PIP_ARGS) \
		--editable '.[peers]'
	touch $@

bench: setup
	-$(MAKE) peers
	$(BIN)/python -m pytest bench --override-ini addopts='--import-mode=importlib -q' \
		--benchmark-only --benchmark-columns=median,iqr,rounds --results bench/RESULTS.md

figures: setup
	$(BIN)/python -m bench.figures $(ARGS)

lint: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

fuzz: setup
	$(BIN)/python tests/fuzz_wire.py --count 900000 --seed 2

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find pipeline blocks flows bench tests -name __pycache__ -type d -prune -exec rm -rf {} +
