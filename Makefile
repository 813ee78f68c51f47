# Two commands: `make demo` shows what the package does, `make test` checks all of it.
# Both need python3 (3.11 or later) and make, and keep to .venv in this folder.

# python3 if it is new enough and can make virtual environments, else the newest one found.
FIND_PYTHON = for python in python3 python3.13 python3.12 python3.11 \
	$$(ls -d $(HOME)/.pyenv/versions/3.1[1-9]*/bin/python3 2>/dev/null | sort -rV); do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { command -v "$$python"; break; }; done

# pip speaks only when it fails.
QUIETLY = >.venv/pip.log 2>&1 || { cat .venv/pip.log >&2; exit 1; }

.PHONY: help demo test bench
.DEFAULT_GOAL := help

help:
	@echo 'make demo    install into .venv and run examples/demo.py'
	@echo 'make test    format, lint, types, tests on the source and on the built wheel, for each Python found'
	@echo '             (.venv/bin/python -m tests --help lists quicker ways)'
	@echo 'make bench   measure ours beside its rivals (about ten minutes)'

demo: .venv/.installed
	@.venv/bin/python examples/demo.py

test: .venv/.installed-dev
	@.venv/bin/python -m tests

bench: .venv/.installed-benchmarks
	@.venv/bin/python benchmarks/calls.py

.venv/bin/python:
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
		echo 'No python3 of version 3.11 or later with its venv module was found' >&2; \
		echo '(Debian and Ubuntu: apt install python3-venv).' >&2; exit 1; \
	fi; \
	echo "making .venv with $$("$$python" -V), $$python"; \
	"$$python" -m venv --clear .venv

# One stamp file per set of dependencies, so that the second run starts at once.
.venv/.installed: pyproject.toml | .venv/bin/python
	@echo 'installing the package into .venv'
	@.venv/bin/python -m pip install -e '.[demo]' $(QUIETLY)
	@touch $@

.venv/.installed-dev: pyproject.toml | .venv/bin/python
	@echo 'installing the package and what its tests need into .venv'
	@.venv/bin/python -m pip install -e '.[dev]' $(QUIETLY)
	@touch .venv/.installed $@

.venv/.installed-benchmarks: pyproject.toml | .venv/bin/python
	@echo 'installing the package and its rivals into .venv'
	@.venv/bin/python -m pip install -e '.[benchmarks]' $(QUIETLY)
	@touch .venv/.installed $@
