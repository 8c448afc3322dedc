# `make help` lists the targets. Needs only make and Python >= 3.11; everything else is installed into .venv, locked by hash.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OPTUNA := $(VENV)/.automl
WHEEL := build/wheel/.built
BUNDLE := build/bundle/manifest.json

PORT ?= 8000
MLFLOW_PORT ?= 5000
DOCKER ?= docker
IMAGE ?= closedloop:dev
DOCKER_BUILD_FLAGS ?= --network host

# One cache of compiled code for commands, service and tests, and the same code as in the image.
export NUMBA_CPU_NAME ?= generic

# A rollback restores model code that may ask for the champion's commit by the variable's old name. It gets the text
# as it is: make would run a $(shell …) in it.
ifdef CHAMPION_COMMIT
export REFERENCE_COMMIT := $(value CHAMPION_COMMIT)
endif

# What people type, or set in their shell, is passed on as it is: make would read a name after each $ in it, and the shell
# its quotes. `value` takes it before make reads it, and `quoted` writes it for the shell.
TYPED := DATA PLACE PARAMS RUN PROFILE VERSIONS UNPIN LOG_SINK PROMISED WHY DECISION OUT SWEEP DAYS MACHINE CALLER CONFIRM SPOOL NAME ENGINE TRIALS MINUTES SEED PROCESSES TRAINED IMAGE MODE OWNERS VARIABLES DRY_RUN COOLDOWN
# What a person says of their files, on the command line alone: a variable of the shell with such a name means something else.
SAID := TIME MACHINE SENSORS FAILURES MAINT TIME_ZONE TIME_FORMAT EPOCH SEPARATOR DECIMAL THOUSANDS ENCODING SKIP_LINES MISSING
TOLD := $(foreach name,$(SAID) FROM UNTIL,$(if $(filter command,$(origin $(name))),$(name)))
define as-typed
override $(1) := $$(value $(1))
export $(1)
endef
$(foreach name,$(TYPED) $(TOLD),$(if $(filter command environment,$(origin $(name))),$(eval $(call as-typed,$(name)))))
# `tidy` strips a command as `strip` does, and leaves the spaces in what is quoted: a folder's name may have two in a row.
empty :=
space := $(empty) $(empty)
quoted = '$(subst $(space),<space>,$(subst ','\'',$($(1))))'
tidy = $(subst <space>,$(space),$(strip $(1)))
said = $(if $(filter $(1),$(TOLD)),--$(shell echo $(1) | tr A-Z_ a-z-)=$(call quoted,$(1)))

# Tests see the built wheel, in this process and in those that they start: the checkout is not on Python's path.
AS_BUILT = PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build/wheel/site" CLOSEDLOOP_WHEEL="$(CURDIR)/build/wheel/site"

# The programs of .ci are two packages, `pipeline` and `dev`: `$(FROM_CI) python3 -m pipeline.plan`.
FROM_CI = PYTHONSAFEPATH=1 PYTHONPATH=.ci

# The environment's Python where it is made: the one of macOS is too old.
PYTHON3 = $(or $(PYTHON),$(firstword $(wildcard $(BIN)/python) python3))

# One process for each file of tests, in the order of the folders.
SPREAD = --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The parameters of the recorded run that RUN names, or the file PARAMS instead of model/params.yaml.
WITH = $(if $(RUN),--params build/params-of-run.yaml,$(if $(PARAMS),--params $(call quoted,PARAMS)))

# The same for the engine that ENGINE names. Spark is installed where it or params.yaml asks for it.
IN_USE = $(if $(ENGINE),--params build/params-of-engine.yaml,$(WITH))
SPARK := $(if $(filter spark,$(ENGINE))$(shell grep -qs '^engine: *spark' model/params.yaml && echo asked),$(VENV)/.spark)

# What all commands of the log's upkeep take.
LOG_FLAGS = $(if $(DRY_RUN),--dry-run) $(if $(JSON),--json)

# The tests that run code of src/closedloop in their own process, and those of its compiled loops that use little data.
TESTS_OF_LIBRARY = $(addprefix tests/,data features heads judge log watch)
TESTS_OF_LOOPS = $(addprefix tests/,data/test_request.py features/test_values.py features/test_baseline.py \
  heads/test_detectors.py heads/test_failure.py heads/test_trees.py)

# $(call if-there,program,command): runs the command where the program is on PATH, else prints that it is skipped. In a
# workflow, where nobody reads that, a checker that .ci/tools locks must be there.
if-there = @if command -v $(1) >/dev/null 2>&1; then echo '$(2)'; $(2); \
  elif [ "$$GITHUB_ACTIONS" = true ] && [ -d .ci/tools/$(1) ]; then echo '$(1) is not on PATH; run: make checkers' >&2; exit 1; \
  else echo 'skipped: $(1) is not on PATH'; fi

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run loop data-check adopt unadopt data-pin drift monitor retrain accept register batch compare sweep mlflow log-status log-compact log-expire log-erase log-repair serve image image-test manifests test check lint types policy contract ci chaos fuzz bench bench-serve coverage mutation pr setup doctor rename lock clean

# The steps of workflows; they are make targets too, and the help leaves them out.
include .ci/steps.mk

help: ## list these targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

##@ Model

run: $(INSTALLED) $(SPARK) ## make the data, train a model, judge it and write a report; DATA=path or PROFILE=azure: other data; PARAMS=file or RUN=id: other parameters; QUICK=1: no ablations and importance; ENGINE=spark: on Spark
	$(if $(RUN),$(call tidy,$(BIN)/python -m model.recorded_params --run $(call quoted,RUN)))
	$(if $(ENGINE),$(call tidy,$(BIN)/python -m model.engine_params $(WITH) --engine $(call quoted,ENGINE)))
	$(if $(wildcard model/params_check.py),$(call tidy,$(BIN)/python -m model.params_check $(IN_USE)))
	$(call tidy,$(BIN)/python -m model.data $(if $(DATA),--source $(call quoted,DATA)) $(if $(PROFILE),--profile $(call quoted,PROFILE)) $(IN_USE))
	$(call tidy,$(BIN)/python -m model.validate $(IN_USE))
	$(call tidy,$(BIN)/python -m model.train $(IN_USE) $(if $(QUICK),--quick))
	$(BIN)/python -m model.predict
	$(call tidy,$(BIN)/python -m model.evaluate $(IN_USE) $(if $(QUICK),--quick))

loop: $(INSTALLED) ## show the whole loop on a simulated fleet in two minutes: serve, drift, retrain, pull request, serve the better model; build/loop/index.html
	@$(BIN)/python -m model.loop

data-check: $(INSTALLED) ## check your own files (DATA=path): what fits, how to fix what does not, and a parameter file (TIME= MACHINE= SENSORS= TIME_ZONE= …: what it cannot tell)
	@$(call tidy,$(BIN)/python -m model.data_check $(if $(DATA),--source $(call quoted,DATA)) $(foreach name,$(SAID),$(call said,$(name))) $(WITH))

adopt: $(INSTALLED) ## make your own files the fleet of this copy (DATA=path, and what data-check takes; PLACE=az://…: an uploaded copy is pinned), or simulated ones (PROFILE=azure)
	@$(call tidy,$(BIN)/python -m model.adopt $(if $(DATA),--source $(call quoted,DATA)) $(if $(PLACE),--place $(call quoted,PLACE)) $(if $(PROFILE),--profile $(call quoted,PROFILE)) $(foreach name,$(SAID),$(call said,$(name))) $(WITH))

unadopt: $(INSTALLED) ## take back what make adopt wrote since the last commit
	@$(BIN)/python -m model.adopt --undo

data-pin: $(INSTALLED) ## pin in model/data.lock.json what it names as it is now, or DATA=place; ADD=1: beside it; FROM= UNTIL=: of Delta tables; UNPIN=id: release a log's versions
	@$(call tidy,$(BIN)/python -m model.data_pin $(if $(DATA),--source $(call quoted,DATA)) $(if $(ADD),--add) $(call said,FROM) $(call said,UNTIL) \
	  $(if $(UNPIN),--unpin $(call quoted,UNPIN)) $(WITH))
	$(if $(UNPIN),,$(call tidy,$(BIN)/python -m model.validate --pin $(WITH)))

drift: $(INSTALLED) $(BUNDLE) ## say whether the last two weeks of build/data (DATA=folder or log) look like what the last run's model learned from
	@$(call tidy,$(BIN)/python -m model.drift $(if $(DATA),--data $(call quoted,DATA)))

monitor: $(INSTALLED) ## say how well the served models did, from the log at LOG_SINK=place; PROMISED=folder: what releases promised; DRIFT=1: whether the world has moved since, too
	@[ -n "$$LOG_SINK" ] || { echo 'make monitor: LOG_SINK is not set; name the log: make monitor LOG_SINK=place [PROMISED=build]' >&2; exit 2; }
	@$(call tidy,$(BIN)/python -m model.monitor --log $(call quoted,LOG_SINK) $(if $(PROMISED),--promised $(call quoted,PROMISED)) $(if $(value DRIFT),--drift) $(if $(value ISSUE),--issue) $(WITH))

retrain: $(INSTALLED) ## train on the pinned data and the newest log at LOG_SINK=place, meet the champion, collect the evidence in build/evidence; VERSIONS=requests=12,feedback=3; QUICK=1
	@$(call tidy,$(BIN)/python -m model.retrain $(if $(VERSIONS),--versions $(call quoted,VERSIONS)) $(if $(QUICK),--quick) $(if $(TRAINED),--trained $(call quoted,TRAINED)) $(WITH))

accept: $(INSTALLED) ## accept a red verdict of CI: WHY="…"; writes model/accepted.json for review (DECISION=path: CI's decision.json)
	$(call tidy,$(BIN)/python -m model.accept --why $(call quoted,WHY) $(if $(DECISION),--decision $(call quoted,DECISION)))

register: $(INSTALLED) ## register the last run's model in MLflow (RUN=id: that run's); it becomes champion only if its verdict says so
	$(call tidy,$(BIN)/python -m model.register $(if $(RUN),--run $(call quoted,RUN)))

batch: $(INSTALLED) $(SPARK) $(BUNDLE) ## score tables (DATA=path: CSV, Parquet or Delta) into OUT=file.parquet or .csv; EVERY_ROW=1: every row, not the last; ENGINE=spark
	@[ -n "$$DATA" ] || { echo 'make batch: DATA is not set; name your tables: make batch DATA=path [OUT=answers.csv]' >&2; exit 2; }
	@$(call tidy,$(BIN)/python -m model.params_check $(WITH))
	$(call tidy,$(BIN)/python -m model.batch --data $(call quoted,DATA) $(if $(OUT),--out $(call quoted,OUT)) $(if $(EVERY_ROW),--every-row) $(if $(ENGINE),--engine $(call quoted,ENGINE)) $(WITH))

compare: $(INSTALLED) ## show what differs between two recorded runs and what it changed: RUN=a,b (the first letters of their ids)
	@[ -n "$$RUN" ] || { echo 'make compare: RUN is not set; name two recorded runs: make compare RUN=a,b' >&2; exit 2; }
	@$(call tidy,$(BIN)/python -m model.compare --runs $(call quoted,RUN))

sweep: $(INSTALLED) ## try a grid of parameters on the last run's training machines: SWEEP="failure.parameters.max_iter=50,100"
	@[ -n "$$SWEEP" ] || { echo 'make sweep: SWEEP is not set; write: make sweep SWEEP="failure.parameters.max_iter=50,100"' >&2; exit 2; }
	@$(call tidy,$(BIN)/python -m model.params_check $(WITH))
	@$(call tidy,$(BIN)/python -m model.sweep --grid $(call quoted,SWEEP) $(WITH))

mlflow: $(INSTALLED) ## open MLflow's pages on the recorded runs, on http://localhost:5000 (MLFLOW_PORT=)
	@[ -f build/mlflow.db ] || { echo 'make mlflow: no run is recorded yet; run: make run' >&2; exit 2; }
	@echo 'http://localhost:$(MLFLOW_PORT) shows the runs; stop it with Ctrl-C'
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --host 127.0.0.1 --port $(MLFLOW_PORT) --workers 1 \
	  --backend-store-uri "sqlite:///$(CURDIR)/build/mlflow.db" --default-artifact-root "file://$(CURDIR)/build/mlartifacts"

##@ Log

log-status: $(INSTALLED) ## print what LOG_SINK=place holds: files, bytes, commits, pins, standing orders of erasure, whether it is halted (JSON=1)
	@$(call tidy,$(BIN)/python -m model.log status $(if $(JSON),--json))

log-compact: $(INSTALLED) ## rewrite the many small files of LOG_SINK=place as few large ones; ALL=1: a few files too; DRY_RUN=1: only say so
	@$(call tidy,$(BIN)/python -m model.log compact $(if $(ALL),--all) $(LOG_FLAGS))

log-expire: $(INSTALLED) ## remove the records of more than DAYS=n days ago from LOG_SINK=place; pinned versions keep theirs (DRY_RUN=1)
	@[ -n "$$DAYS" ] || { echo 'make log-expire: DAYS is not set; say how many days of records stay: make log-expire DAYS=400' >&2; exit 2; }
	@$(call tidy,$(BIN)/python -m model.log expire --days=$(call quoted,DAYS) $(LOG_FLAGS))

log-erase: $(INSTALLED) ## remove MACHINE=id or CALLER=name from every version in LOG_SINK=place; CONFIRM=the same name; WITHDRAW=1: end the order
	@[ -n "$$MACHINE$$CALLER" ] || { echo 'make log-erase: say whose records: make log-erase MACHINE=7, MACHINE="Pump A/7" or CALLER=name' >&2; exit 2; }
	@$(call tidy,$(BIN)/python -m model.log erase $(if $(MACHINE),--machine=$(call quoted,MACHINE)) $(if $(CALLER),--caller=$(call quoted,CALLER)) \
	  $(if $(CONFIRM),--confirm=$(call quoted,CONFIRM)) $(if $(WITHDRAW),--withdraw) $(LOG_FLAGS))

log-repair: $(INSTALLED) ## say why the log at LOG_SINK=place is halted, and repair it: SPOOL="LOG_DIRs" with the segments, DRY_RUN=1, CONFIRM=
	@[ -n "$$LOG_SINK" ] || { echo 'make log-repair: LOG_SINK is not set; name the log: make log-repair LOG_SINK=place [SPOOL=dir]' >&2; exit 2; }
	$(call tidy,$(BIN)/python -m model.log_repair --sink $(call quoted,LOG_SINK) $(foreach dir,$(SPOOL),--spool $(call quoted,dir)) $(if $(DRY_RUN),--dry-run) $(if $(CONFIRM),--confirm=$(call quoted,CONFIRM)))

##@ Service and image

serve: $(INSTALLED) $(BUNDLE) ## serve the last run's model on http://localhost:8000 (PORT=), without authentication
	MODEL_DIR=build/bundle LOG_DIR=build/log AUTH=open PORT=$(PORT) $(BIN)/python -m score

image: engine $(WHEEL) $(BUNDLE) ## build the container image closedloop:dev (IMAGE=) with the last run's model inside
	arguments=$$($(FROM_CI) $(BIN)/python -m pipeline.image_labels) && DOCKER_BUILDKIT=1 $(DOCKER) build $(DOCKER_BUILD_FLAGS) \
	  --build-arg PYTHON_IMAGE $$arguments --file docker/Dockerfile --tag $(call quoted,IMAGE) .
	@[ -z "$$GITHUB_OUTPUT" ] || { $(DOCKER) image inspect --format 'id={{.Id}}' $(call quoted,IMAGE) && printf 'name=%s\n' $(call quoted,IMAGE); } >> "$$GITHUB_OUTPUT"

image-test: engine $(INSTALLED) ## run that image without privileges, call every route, kill it, and check its log
	@$(DOCKER) image inspect $(call quoted,IMAGE) >/dev/null || { printf 'make $@: there is no image %s; build it with: make image\n' $(call quoted,IMAGE) >&2; exit 2; }
	DOCKER=$(DOCKER) IMAGE=$(call quoted,IMAGE) $(BIN)/pytest tests/e2e/test_image.py

manifests: $(INSTALLED) ## render the Kubernetes manifests of every overlay to build/manifests, and validate them
	$(FROM_CI) $(BIN)/python -m pipeline.manifests
	$(BIN)/pytest -q tests/repo/test_manifests.py tests/repo/test_manifest_scan.py

##@ Tests and checks

test: $(WHEEL) ## test model, service and log against the built wheel: every test that a laptop can run
	$(AS_BUILT) $(BIN)/pytest $(SPREAD) $(addprefix --ignore tests/,repo e2e chaos fuzz)

check: $(INSTALLED) ## run lint, types, lock-check and policy; the rest still runs after one fails
	@$(MAKE) --no-print-directory --keep-going lint types lock-check policy

lint: $(INSTALLED) ## check the style of Python, YAML, shell and Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint --strict .
	$(call if-there,$(BIN)/shellcheck,$(BIN)/shellcheck .ci/run)
	$(BIN)/hadolint docker/Dockerfile

types: $(INSTALLED) ## check types, and which package may import which
	$(BIN)/mypy src model score .ci/pipeline .ci/dev docker/*.py $(wildcard k8s/*.py platforms/azureml/*.py tests/e2e/*cluster*.py tests/e2e/gateway.py tests/e2e/releases.py)
	$(BIN)/lint-imports --no-logo

policy: $(INSTALLED) ## check workflows, manifests, docs and make targets against the repository's rules; look for secrets
	$(BIN)/zizmor --offline --strict-collection --persona auditor --no-progress --quiet .github
	$(call if-there,actionlint,actionlint)
	$(call if-there,act-run,act-run check)
	$(call if-there,gitleaks,gitleaks git --no-banner --redact --log-level warn)
	$(BIN)/pytest -q $(SPREAD) --ignore tests/repo/test_taking_away.py tests/repo
	$(BIN)/pytest -q --numprocesses auto --maxprocesses 4 tests/repo/test_taking_away.py # each test takes as long as a file

contract: $(WHEEL) $(BUNDLE) ## check that score.py, the service and Azure's server give the same answers with the last run's model, and the README's commands
	$(AS_BUILT) $(BIN)/pytest $(addprefix tests/e2e/test_,contract.py azmlinfsrv.py readme.py)

ci: $(INSTALLED) ## run every job of ci.yml on this machine, in the same order
	@$(FROM_CI) $(BIN)/python -m dev.local_ci

chaos: $(WHEEL) ## test kills, power cuts, full disks and overload; slow (KILLS=n: fewer than 200 kills)
	$(AS_BUILT) $(BIN)/pytest --durations 10 tests/chaos

fuzz: $(WHEEL) ## fuzz the service through its OpenAPI document, and its readers with random bytes (FUZZ_SECONDS=n: not 30 each)
	$(AS_BUILT) $(BIN)/pytest --durations 10 tests/fuzz

bench: $(INSTALLED) ## measure speed against pandas, polars and scikit-learn, the gate's error rates and the whole run; takes minutes
	$(BIN)/python tests/bench

bench-serve: $(WHEEL) $(BUNDLE) ## measure the service beside MLflow, MLServer, BentoML, azmlinfsrv and FastAPI, its shipper and its start (QUICK=1: a minute)
	$(BIN)/python tests/bench/serve.py $(if $(QUICK),--quick)
	$(BIN)/python tests/bench/ship_rate.py $(if $(QUICK),--records 2000 --machines 20000)
	$(BIN)/python tests/bench/start_to_ready.py $(if $(QUICK),--starts 1)

coverage: $(INSTALLED) ## measure branch coverage of src/closedloop, also of the compiled loops; red below 95 %
	@mkdir -p build/coverage
	$(BIN)/pytest -q $(TESTS_OF_LIBRARY) $(SPREAD) --cov=closedloop --cov-report=
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest -q $(TESTS_OF_LOOPS) -W ignore::RuntimeWarning \
	  --cov=closedloop --cov-append --cov-report=term-missing:skip-covered --cov-fail-under=95

mutation: $(INSTALLED) ## measure how many mutants of gate, episodes and labels the tests find; red below 90 %
	$(FROM_CI) $(BIN)/python -m dev.mutation

##@ Repository

pr: ## push this branch, open a pull request, and have GitHub merge it once it is green; uses your own login of gh
	@$(FROM_CI) $(PYTHON3) -m dev.pr

setup: ## set up this repository on GitHub with your own login of gh: rules of main, environments, settings (DRY_RUN=1; MODE=team OWNERS=@org/team; VARIABLES="NAME=value …")
	@$(FROM_CI) $(PYTHON3) -m dev.setup

doctor: ## print what is configured, and what is skipped and why; works offline
	@$(FROM_CI) $(PYTHON3) -m dev.doctor

rename: ## give your copy a name of its own: NAME=press-line
	@$(call tidy,$(FROM_CI) $(PYTHON3) -m dev.rename $(call quoted,NAME))

lock: $(INSTALLED) ## compile requirements/*.txt from pyproject.toml (UPGRADE=1: to the newest versions of a week ago, COOLDOWN=days; UPGRADE=spark or azureml: that lock alone)
	@$(FROM_CI) $(BIN)/python -m dev.locks $(if $(UPGRADE),--upgrade $(filter-out 1,$(UPGRADE)))

clean: ## delete build/; .venv stays
	rm -rf build

# --- what the targets above need ---

# Each thing that a bare machine may lack has one line that names it.
$(BIN)/python:
	@for name in $(or $(PYTHON),python3 python python3.14 python3.13 python3.12 python3.11); do \
	  python=$$("$$name" -c 'import sys; sys.version_info >= (3, 11) and print(sys.executable)' 2>/dev/null); \
	  [ -z "$$python" ] || break; done; \
	[ -n "$$python" ] || { echo 'make: no Python >= 3.11 found; install one, or name it: make PYTHON=/path/to/python3' >&2; exit 2; }; \
	if uv --version >/dev/null 2>&1; then uv venv --quiet --python "$$python" $(VENV); \
	elif "$$python" -c 'import ensurepip' 2>/dev/null; then "$$python" -m venv $(VENV); \
	else echo "make: $$python has no ensurepip; install it (Debian: apt install python3-venv), or install uv" >&2; exit 2; fi

# Where Python may keep no bytecode, each command would compile the libraries again: 7 of the 11 s of model.validate.
COMPILED := $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode)

$(INSTALLED): requirements/dev.txt requirements/uv.txt pyproject.toml | $(BIN)/python
	@echo 'installing the locked requirements into $(VENV)'; \
	if [ -x $(BIN)/uv ]; then uv=$(BIN)/uv; elif uv --version >/dev/null 2>&1; then uv=uv; \
	else $(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/uv.txt && uv=$(BIN)/uv; fi && \
	"$$uv" pip sync --quiet $(COMPILED) --python $(BIN)/python --require-hashes requirements/dev.txt requirements/uv.txt && \
	"$$uv" pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# An extra, which is installed where somebody asks for it, and is never in the image.
$(VENV)/.%: requirements/%.txt $(INSTALLED)
	@echo 'installing $< into $(VENV)'; uv=$(BIN)/uv; [ -x "$$uv" ] || uv=uv; \
	"$$uv" pip install --quiet $(COMPILED) --python $(BIN)/python --require-hashes --requirement $<
	@touch $@

$(WHEEL): $(INSTALLED) README.md LICENSE $(shell find src model score -type f ! -path '*/__pycache__/*')
	@rm -rf build/wheel
	$(BIN)/python -m hatchling build --target wheel --directory build/wheel
	@$(BIN)/python -m zipfile --extract build/wheel/*.whl build/wheel/site
	@# what Numba compiled already, which it looks up by the content of a file: compiling takes longer than most tests
	@cd src && find closedloop -name '*.nb[ci]' | tar -cf - -T - | tar -xf - -C ../build/wheel/site
	@touch $@

# Without DATA: the tables of make batch are to be scored, not to be learned from.
$(BUNDLE): | $(INSTALLED)
	$(MAKE) run DATA= ENGINE=
