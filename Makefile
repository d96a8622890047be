# make check: what CI runs on the working tree, in the environment at hand
.PHONY: check lint types test format bench

check: lint types test

lint:
	ruff check .
	ruff format --check .

types:
	mypy

test:
	OMP_NUM_THREADS=1 python -m pytest -n auto

format:
	ruff check --fix .
	ruff format .

bench:
	OMP_NUM_THREADS=1 python tests/benchmarks/engine.py
