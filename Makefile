# The commands of this project; `make` or `make help` lists them. Works with GNU make 3.81 and later.

PYTHON ?= python3
ARGS ?=
JOBS ?= 2
UV = 0.13.8

export UV_PYTHON_DOWNLOADS = never
export PIP_DISABLE_PIP_VERSION_CHECK = 1

python = .venv/bin/python
# Nothing is compiled: no compiler is needed, and none is missed late.
built = --only-binary :all:

# What is wrong with the chosen Python, as one sentence; old Pythons must be able to read it.
define CHECK
import sys
def fail(why):
    sys.exit("kairos: " + why + " Choose another one with: make PYTHON=/path/to/python3 ...")
if not (3, 11) <= sys.version_info[:2] < (3, 15):
    fail("Python 3.11 to 3.14 is needed, and %s is %d.%d." % ((sys.executable,) + sys.version_info[:2]))
try:
    import ensurepip, venv
except ImportError:
    fail("%s has no module venv (Debian and Ubuntu: apt-get install python3-venv)." % sys.executable)
endef
export CHECK

.PHONY: help demo up test storm lint

help:
	@echo 'make demo    rehearse a whole study on a stack of its own'
	@echo '             ARGS="--recorded FILE" plays recorded people, ARGS="--participants N --points T" others'
	@echo 'make up      run the API, the workers and Flower until Ctrl-C'
	@echo 'make test    run the tests; ARGS="tests/api -k name" runs some of them, JOBS=4 more at a time'
	@echo 'make storm   100,000 calls full of duplicates, then a trial whose processes are killed, on stacks of their own'
	@echo '             ARGS="--calls 5000 --participants 12 --points 8 --kills 2" makes it shorter,'
	@echo '             ARGS="--seeds 1 2 3 --report docs/storm.md" plays several, one after the other, and writes down'
	@echo '             what happened'
	@echo 'make lint    check style and types'
	@echo ''
	@echo 'PYTHON=/path/to/python3 chooses the Python that .venv is made with.'

demo: .venv/installed
	@exec $(python) -m local demo $(ARGS)

up: .venv/installed
	@exec $(python) -m local up $(ARGS)

test: .venv/installed-dev .venv-swift/installed
	@exec $(python) -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

storm: .venv/installed-dev
	@exec $(python) -m tests.storm $(ARGS)

lint: .venv/installed-dev
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy

.venv/installed: requirements.lock .venv/made
	$(call install,requirements.lock)

.venv/installed-dev: requirements-dev.lock .venv/made
	$(call install,requirements-dev.lock)
	@touch .venv/installed

# The S3 server of the tests (tests/support/s3.py) has an environment of its own. It is only tried: where a
# package of it has no wheel, as on macOS, the tests that need it say so and are skipped.
.venv-swift/installed: requirements-swift.lock .venv/made
	@echo 'kairos: installing $< into .venv-swift ...'
	@if $(python) -m venv --clear .venv-swift \
		&& .venv-swift/bin/python -m pip install --quiet $(built) --require-hashes --requirement $<; then \
		touch $@; \
	else echo 'kairos: without the packages of $<, the tests with an S3 server are skipped.' >&2; fi

# uv takes seconds where pip takes half a minute; pip does where uv has no wheel. Compiling once, here, spares
# the five processes of the stack doing it at every start where Python is told not to write what it compiled.
define install
	@echo 'kairos: installing $(1) into .venv ...'
	@if $(python) -m uv --version >/dev/null 2>&1; then \
		$(python) -m uv pip install --quiet --compile-bytecode --python $(python) $(built) --require-hashes --requirement $(1); \
	else \
		$(python) -m pip install --quiet $(built) --require-hashes --requirement $(1); \
	fi || { echo 'kairos: the packages of $(1) cannot be installed here; the lines above say why.' >&2; exit 1; }
	@touch $@
endef

# A virtual environment that works is kept, whoever made it.
.venv/made:
	@if ! { $(python) -c "$$CHECK" && $(python) -m pip --version; } >/dev/null 2>&1; then \
		command -v '$(PYTHON)' >/dev/null || { \
			echo 'kairos: there is no $(PYTHON): install Python 3.11 or later, or choose with make PYTHON=...' >&2; \
			exit 1; }; \
		'$(PYTHON)' -c "$$CHECK" && '$(PYTHON)' -m venv --clear .venv || exit 1; \
	fi
	@$(python) -m pip install --quiet --only-binary :all: uv==$(UV) 2>/dev/null || true
	@touch $@
