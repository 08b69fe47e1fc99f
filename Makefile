# Two commands on a fresh machine do everything: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow lint format constraints clean

demo: .venv/installed
	$(BIN)/raydeck train cnn

test: lint
	$(BIN)/pytest -m "not slow" -n 2 --dist loadgroup

slow: .venv/installed
	$(BIN)/pytest -m slow

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Installed anew, in place, whenever what is to be installed changes.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

constraints:
	rm -rf .venv/fresh
	$(PYTHON) -m venv .venv/fresh
	.venv/fresh/bin/pip install --quiet torch==2.13.0 '.[all,dev]'
	(echo '# Every package that `make demo` and `make test` install, pinned. Made by `make constraints` in a fresh environment.'; \
	  .venv/fresh/bin/pip freeze | sed -n 's/^\([A-Za-z0-9._-]*\)\(==[^+]*\).*/\1\2/p' | grep -v '^raydeck==') > constraints.txt
	rm -rf .venv/fresh

clean:
	rm -rf .venv
