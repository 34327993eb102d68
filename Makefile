# The book, one word for each thing to do; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup book student instructor slides pdf offline test lint sync serve clean

PYTHON := .venv/bin/python
PROFILE ?= quick
PORT ?= 8000

# One thread for each process: the chapters and the tests run two at a time.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1: /p' $(MAKEFILE_LIST)

setup:  ## make .venv with the pinned packages (every other word does it by itself)
	@sh tools/setup.sh

book: setup  ## execute every chapter, render _build/html/index.html (PROFILE=colab for a GPU)
	@$(PYTHON) -m tools.build --profile $(PROFILE)

student: book  ## a site and notebooks without solutions, in _build/student
	@$(PYTHON) -m tools.editions student

instructor: book  ## the same with times, notes and open solutions, in _build/instructor
	@$(PYTHON) -m tools.editions instructor

slides: book  ## a deck of slides for each chapter, in _build/slides
	@$(PYTHON) -m tools.slides

pdf: book  ## the whole book as _build/pdf/book.pdf; needs Chromium
	@$(PYTHON) -m tools.pdf

offline: book  ## site, notebooks, library and weights in one zip, for a room without a network
	@$(PYTHON) -m tools.offline

test: setup  ## run every test, with the coverage of medsaga_lib
	@echo "make: running the tests, two at a time"
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal --durations 20 --cov=medsaga_lib

lint: setup  ## look at the code and at the chapters without running them
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports --no-logo --no-cache
	@$(PYTHON) -m tools.lint

sync: setup  ## bring what is generated up to date: notebooks/*.ipynb and .py, the counts of recipes
	@$(PYTHON) -m tools.pairs
	@$(PYTHON) -m medsaga_lib.memory.counts

serve: setup  ## show the built book on http://localhost:8000 (PORT=8001 for another)
	@$(PYTHON) -m tools.serve --port $(PORT)

clean:  ## remove what was built, keep .venv
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
