# The two commands: `make dev` serves the example, `make test` passes the tests. Both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: dev test check soak bench lock format clean help

help: ## what there is to make
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

dev: $(READY) ## serve routes_example on http://127.0.0.1:3000, reloading on save
	$(BIN)/raffel dev routes_example

test: $(READY) ## run the tests, with a real browser
	$(BIN)/python tests/browser/chromium.py
	$(BIN)/python tests/envelopes/node.py
	$(BIN)/python tests/grpc/nghttp2.py
	$(BIN)/python -m pytest

check: $(READY) ## format, lint, types and layers, as CI does
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(READY) ## format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: $(READY) ## a thousand random programs of envelopes against a live server
	RAFFEL_SOAK=1000 $(BIN)/python -m pytest --timeout 900 -s tests/envelopes/test_state_machine.py

bench: $(READY) ## compare with the bare limit and with other servers (about thirteen minutes)
	$(BIN)/python -m benchmarks

lock: ## pin the development dependencies anew
	$(PYTHON) -m pip install --quiet uv
	$(PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 --group dev --all-extras \
		--no-header --no-emit-index-url --upgrade pyproject.toml -o requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "found Python " + sys.version.split()[0] + ", expected 3.11 or later")'
	@echo "setting up $(VENV): this takes about a minute"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean: ## remove what was set up
	rm -rf $(VENV) .venv-bench benchmarks/.build
