# `make help` is the index. Needs only make and Python >= 3.11: all else goes into .venv, locked by hash.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WHEEL := build/wheel/.built
BUNDLE := build/bundle/manifest.json

PORT ?= 8000
DOCKER ?= docker
IMAGE ?= closedloop:dev
DOCKER_BUILD_FLAGS ?= --network host

# One cache of compiled code for verbs, service and tests, of the very code that the image holds.
export NUMBA_CPU_NAME ?= generic

# Tests see the built wheel, in this process and in those they start: -P keeps the checkout off the path.
AS_BUILT = PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build/wheel/site" CLOSEDLOOP_WHEEL="$(CURDIR)/build/wheel/site"

# A file of tests to a process, in the order of the folders.
SPREAD = --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The parameters of the recorded run that RUN names, or the file PARAMS instead of model/params.yaml.
WITH = $(if $(RUN),--params build/params-of-run.yaml,$(if $(PARAMS),--params "$(PARAMS)"))

# What all commands of the log's upkeep take.
LOG_FLAGS = $(if $(DRY_RUN),--dry-run) $(if $(JSON),--json)

# What runs code of src/closedloop in this process, and what runs its compiled loops on little data.
TESTS_OF_NOUNS = $(addprefix tests/,data features heads judge log)
TESTS_OF_LOOPS = $(addprefix tests/,data/test_request.py features/test_values.py features/test_baseline.py \
  heads/test_detectors.py heads/test_failure.py heads/test_trees.py)

# $(call if-there,program,command): runs the command where the program is on PATH, and says so where it is not.
if-there = @if command -v $(1) >/dev/null 2>&1; then echo '$(2)'; $(2); else echo 'skipped: $(1) is not on PATH'; fi

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run data-check promote accept batch log-status log-compact log-expire log-erase data-pin log-repair serve image image-test image-same sbom release-files release-draft release-verify release-publish release-fetch kubelogin deploy deploy-served smoke mirror rollback-hold rollback-move retrain-judge propose engine manifests test contract chaos fuzz bench bench-serve coverage mutation check lint types lock-check policy ci plan summary required retrain reference bundle-digest comment status issue head scans zizmor ship-plan ship-hold image-push pr protect doctor rename lock clean

help: ## this page
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

##@ The model

run: $(INSTALLED) ## data, validate, train, predict, evaluate; DATA=path or PROFILE=azure for another fleet, PARAMS=file or RUN=id
	$(if $(RUN),$(BIN)/python -m model.recall --run "$(RUN)")
	$(strip $(BIN)/python -m model.data $(if $(DATA),--source "$(DATA)") $(if $(PROFILE),--profile $(PROFILE)) $(WITH))
	$(strip $(BIN)/python -m model.validate $(WITH))
	$(strip $(BIN)/python -m model.train $(WITH))
	$(BIN)/python -m model.predict
	$(strip $(BIN)/python -m model.evaluate $(WITH))

data-check: $(INSTALLED) ## what fits of the files in DATA=path, what does not, the mends, and a parameter file for them
	@$(strip $(BIN)/python -m model.data_check $(if $(DATA),--source "$(DATA)") $(WITH))

retrain: $(INSTALLED) ## train on what the log added; until the log is read, on the embedded data; evidence in build/evidence
	@echo 'retrain: the request log is not read yet, so this trains on the data that model/data.lock.json pins'
	@rm -f build/decision.json
	@$(MAKE) run || grep -q '"verdict": "worse"' build/decision.json # that is an answer too, and the evidence says why
	@mkdir -p build/evidence
	cp model/data.lock.json build/decision.json build/report/summary.md build/evidence

promote: $(INSTALLED) ## register the last run's model (RUN=id: that one's) in MLflow as champion, never against its verdict
	$(strip $(BIN)/python -m model.register $(if $(RUN),--run "$(RUN)"))

accept: $(INSTALLED) ## let a red verdict pass: WHY="…", written with CI's decision (DECISION=path) to model/accepted.json
	$(strip $(BIN)/python -m model.accept --why "$$WHY" $(if $(DECISION),--decision "$(DECISION)"))

batch: $(INSTALLED) $(BUNDLE) ## score the tables in DATA=path (CSV, Parquet, Delta) into OUT=file.parquet or .csv; EVERY_ROW=1 answers for all rows
	@[ -n "$(DATA)" ] || { echo 'make batch: name your tables: make batch DATA=path [OUT=answers.csv]' >&2; exit 2; }
	$(strip $(BIN)/python -m model.batch --data "$(DATA)" $(if $(OUT),--out "$(OUT)") $(if $(EVERY_ROW),--every-row) $(WITH))

log-status: $(INSTALLED) ## what LOG_SINK holds: files, bytes, commits, pins, orders of erasure, whether it is halted
	@$(strip $(BIN)/python -m model.log status $(if $(JSON),--json))

log-compact: $(INSTALLED) ## few large files in LOG_SINK for many small ones; ALL=1 for a few too; DRY_RUN=1 only says it
	@$(strip $(BIN)/python -m model.log compact $(if $(ALL),--all) $(LOG_FLAGS))

log-expire: $(INSTALLED) ## leave out of LOG_SINK the records of more than DAYS=n days ago; pins keep theirs
	@[ -n "$(DAYS)" ] || { echo 'make log-expire: say how many days of records stay: make log-expire DAYS=400' >&2; exit 2; }
	@$(strip $(BIN)/python -m model.log expire --days "$(DAYS)" $(LOG_FLAGS))

log-erase: $(INSTALLED) ## remove MACHINE=id or CALLER=name from all versions in LOG_SINK; CONFIRM=the same; WITHDRAW=1 ends the order
	@[ -n "$(MACHINE)$(CALLER)" ] || { echo 'make log-erase: say whose records: make log-erase MACHINE=7, or CALLER=name' >&2; exit 2; }
	@$(strip $(BIN)/python -m model.log erase $(if $(MACHINE),--machine "$(MACHINE)",--caller "$(CALLER)") \
	  $(if $(CONFIRM),--confirm "$(CONFIRM)") $(if $(WITHDRAW),--withdraw) $(LOG_FLAGS))

data-pin: $(INSTALLED) ## fetch what model/data.lock.json names, validate it, and pin its fingerprint
	$(BIN)/python -m model.data
	$(BIN)/python -m model.validate --pin

log-repair: $(INSTALLED) ## say why LOG_SINK=place is halted, and repair it; SPOOL="dirs" that still have the segments, DRY_RUN=1, CONFIRM=
	@[ -n "$(LOG_SINK)" ] || { echo 'make log-repair: name the log: make log-repair LOG_SINK=place [SPOOL=dir]' >&2; exit 2; }
	$(strip $(BIN)/python -m model.log_repair --sink "$(LOG_SINK)" $(foreach dir,$(SPOOL),--spool "$(dir)") $(if $(DRY_RUN),--dry-run) $(if $(CONFIRM),--confirm "$(CONFIRM)"))

##@ The service

serve: $(INSTALLED) $(BUNDLE) ## the service on http://localhost:8000 (PORT=) with the bundle of the last run; open to all
	MODEL_DIR=build/bundle LOG_DIR=build/log AUTH=open PORT=$(PORT) $(BIN)/python -m score

image: engine $(WHEEL) $(BUNDLE) ## the container image closedloop:dev (IMAGE=) with the model inside
	labels=$$($(BIN)/python .ci/labels.py) && DOCKER_BUILDKIT=1 $(DOCKER) build $(DOCKER_BUILD_FLAGS) \
	  --build-arg PYTHON_IMAGE $$labels --file docker/Dockerfile --tag $(IMAGE) .

image-test: engine $(INSTALLED) ## run that image without any privilege, ask every route, kill it, and look for the answers in its log
	@$(DOCKER) image inspect $(IMAGE) >/dev/null || { echo 'make $@: there is no image $(IMAGE); make it with: make image' >&2; exit 2; }
	DOCKER=$(DOCKER) IMAGE=$(IMAGE) $(BIN)/pytest tests/e2e/test_image.py

image-same: engine $(WHEEL) $(BUNDLE) ## build it twice from nothing, and compare every file of both; takes minutes
	DOCKER=$(DOCKER) DOCKER_BUILD_FLAGS="$(DOCKER_BUILD_FLAGS)" $(BIN)/pytest tests/e2e/test_image_same.py

sbom: engine $(INSTALLED) ## what is in that image, as CycloneDX, in build/sbom.json; red where lock and image differ
	DOCKER=$(DOCKER) IMAGE=$(IMAGE) $(BIN)/python .ci/sbom.py

engine: ## whether a container engine answers, which both need
	@$(DOCKER) info >/dev/null 2>&1 || { echo 'make: `$(DOCKER) info` finds no container engine; start one, or name its client: DOCKER=path' >&2; exit 2; }

manifests: $(INSTALLED) ## every overlay of k8s/ rendered to build/manifests, and validated
	$(BIN)/python .ci/manifests.py
	$(BIN)/pytest -q tests/repo/test_manifests.py

##@ Checks

test: $(WHEEL) ## model, service and log against the built wheel: every test of them that a laptop can run
	$(AS_BUILT) $(BIN)/pytest $(SPREAD) $(addprefix --ignore tests/,repo e2e chaos fuzz)

contract: $(WHEEL) $(BUNDLE) ## score.py, the service and Azure's server, with the bundle of the last run: the same answers; the README's commands
	$(AS_BUILT) $(BIN)/pytest $(addprefix tests/e2e/test_,contract.py azmlinfsrv.py readme.py)

chaos: $(WHEEL) ## the slow ones: kill, power cut, full disk, overload; KILLS=n for fewer than 200 kills
	$(AS_BUILT) $(BIN)/pytest --durations 10 tests/chaos

fuzz: $(WHEEL) ## the service against its OpenAPI document, and made-up bytes against its readers; FUZZ_SECONDS=n each, not 30
	$(AS_BUILT) $(BIN)/pytest --durations 10 tests/fuzz

bench: $(INSTALLED) ## speed against pandas, polars and scikit-learn, the gate's error rates, the whole run; takes minutes
	$(BIN)/python tests/bench

bench-serve: $(WHEEL) $(BUNDLE) ## our service beside MLflow, MLServer, BentoML, azmlinfsrv and FastAPI, and its start; QUICK=1 for a minute
	$(BIN)/python tests/bench/serve.py $(if $(QUICK),--quick)
	$(BIN)/python tests/bench/start_to_ready.py $(if $(QUICK),--starts 1)

coverage: $(INSTALLED) ## branch coverage of src/closedloop, red below 95 %; the compiled loops once more without their compiler
	@mkdir -p build/coverage
	$(BIN)/pytest -q $(TESTS_OF_NOUNS) $(SPREAD) --cov=closedloop --cov-report=
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest -q $(TESTS_OF_LOOPS) -W ignore::RuntimeWarning \
	  --cov=closedloop --cov-append --cov-report=term-missing:skip-covered --cov-fail-under=95

mutation: $(INSTALLED) ## how many slips in gate, episodes and labels the tests notice, red below 90 %
	$(BIN)/python .ci/mutation.py

check: $(INSTALLED) ## all that needs no model: the next four, to the end even if one is red
	@$(MAKE) --no-print-directory --keep-going lint types lock-check policy

lint: $(INSTALLED) ## style of Python, YAML, shell and Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint --strict .
	$(BIN)/shellcheck .ci/run
	$(BIN)/hadolint docker/Dockerfile

types: $(INSTALLED) ## types, and which room may import which
	$(BIN)/mypy src model score .ci/pipeline .ci/dev docker/*.py
	$(BIN)/lint-imports --no-logo

lock-check: $(INSTALLED) ## whether the locks still are what pyproject.toml asks for
	@$(BIN)/python .ci/locks.py --check

policy: $(INSTALLED) ## rules of workflows, manifests and text; secrets
	$(BIN)/zizmor --offline --strict-collection --persona auditor --no-progress --quiet .github
	$(call if-there,actionlint,actionlint)
	$(call if-there,act-run,act-run check)
	$(call if-there,gitleaks,gitleaks git --no-banner --redact --log-level warn)
	$(BIN)/pytest -q $(SPREAD) tests/repo

ci: $(INSTALLED) ## the graph of ci.yml, here
	@$(BIN)/python .ci/graph.py

##@ The steps of the workflows that are no one's daily work

plan: ## which jobs this change needs
	@python3 .ci/plan.py

reference: ## which commit this change must meet: the reference's, else BASE_COMMIT
	@python3 .ci/reference.py

summary: ## the report of the last run, for the page of a CI run
	@cat build/report/summary.md >> "$${GITHUB_STEP_SUMMARY:-/dev/stdout}"

bundle-digest: $(INSTALLED) ## the digest of the bundle, verified; red if it is not EXPECTED
	@$(BIN)/python .ci/bundle.py

required: ## the verdict over all jobs, from NEEDS
	@python3 .ci/required.py

comment: ## the verdict on the pull request PULL_REQUEST, in its one comment
	@python3 .ci/comment.py

status: ## NEEDS as a commit status, for a run that was started by hand
	@python3 .ci/watch.py status

issue: ## one open issue while main is red, from NEEDS
	@python3 .ci/watch.py issue

head: ## whether main's newest commit has its release
	@python3 .ci/watch.py head

scans: ## which of GitHub's scanners this repository can have
	@python3 .ci/watch.py scans

zizmor: $(INSTALLED) ## the workflows against what is known of actions online; needs GH_TOKEN
	$(BIN)/zizmor --strict-collection --persona auditor --no-progress --quiet .github

ship-plan: ## whether this commit of main ships, where to, and what is skipped
	@python3 .ci/promote.py plan

ship-hold: ## red while a rollback waits for a person
	@python3 .ci/promote.py hold

image-push: engine ## push the image that was tested, and say its digest
	@DOCKER=$(DOCKER) IMAGE=$(IMAGE) python3 .ci/push.py

release-files: ## all that a release holds, in build/release
	@python3 .ci/promote.py gather

release-draft: ## a draft release of build/release
	@python3 .ci/promote.py draft

release-verify: ## who signed what build/release names, before it is deployed
	@python3 .ci/promote.py verify

release-publish: ## publish the draft: it is what is served
	@python3 .ci/promote.py publish

release-fetch: ## the files of the release RELEASE, in build/release
	@python3 .ci/deploy.py fetch

kubelogin: ## the client that logs kubectl in to AKS, from the Azure CLI
	az aks install-cli --only-show-errors --client-version 1.34.2 --kubelogin-version v0.2.14 \
	  --install-location build/bin/kubectl --kubelogin-install-location build/bin/kubelogin
	@echo "$(CURDIR)/build/bin" >> "$${GITHUB_PATH:-/dev/null}"

deploy: ## apply the manifests OVERLAY of build/release, and wait for the rollout
	@python3 .ci/deploy.py apply

deploy-served: ## apply what was served last
	@python3 .ci/deploy.py served

smoke: ## ask what was deployed whether it is what was released
	@python3 .ci/deploy.py smoke

mirror: $(INSTALLED) ## record the run and its verdict where MLFLOW_TRACKING_URI points
	$(BIN)/python -m model.mirror

rollback-hold: ## hold everything else back, and open the pull request that restores RELEASE; REASON says why
	@python3 .ci/rollback.py hold

rollback-move: ## RELEASE is what is served from now on
	@python3 .ci/rollback.py move

retrain-judge: ## whether the evidence is worth a pull request
	@python3 .ci/propose.py judge

propose: ## open the pull request of a retraining
	@python3 .ci/propose.py

##@ The repository

pr: ## push this branch, open a pull request, and let it merge itself once it is green; with your own login of gh
	@python3 .ci/pr.py

protect: ## put the rules of .github/rulesets on main: MODE=solo, or team for an organisation
	@python3 .ci/protect.py $(MODE)

doctor: ## what is set up here, and what is skipped and why; needs no network
	@python3 .ci/doctor.py

rename: ## give your copy a name of its own: NAME=press-line
	@python3 .ci/rename.py "$(NAME)"

lock: $(INSTALLED) ## requirements/*.txt from pyproject.toml; UPGRADE=1 takes the newest versions
	@$(BIN)/python .ci/locks.py $(if $(UPGRADE),--upgrade)

clean: ## remove what was generated; .venv stays
	rm -rf build

# --- what the targets above stand on ---

# One line each for what a bare machine may lack.
$(BIN)/python:
	@for name in $(or $(PYTHON),python3 python python3.14 python3.13 python3.12 python3.11); do \
	  python=$$("$$name" -c 'import sys; sys.version_info >= (3, 11) and print(sys.executable)' 2>/dev/null); \
	  [ -z "$$python" ] || break; done; \
	[ -n "$$python" ] || { echo 'make: no Python >= 3.11 found; install one, or name it: make PYTHON=/path/to/python3' >&2; exit 2; }; \
	if uv --version >/dev/null 2>&1; then uv venv --quiet --python "$$python" $(VENV); \
	elif "$$python" -c 'import ensurepip' 2>/dev/null; then "$$python" -m venv $(VENV); \
	else echo "make: $$python has no ensurepip; install it (Debian: apt install python3-venv), or install uv" >&2; exit 2; fi

$(INSTALLED): requirements/dev.txt requirements/uv.txt pyproject.toml | $(BIN)/python
	@echo 'installing the locked requirements into $(VENV)'; \
	if [ -x $(BIN)/uv ]; then uv=$(BIN)/uv; elif uv --version >/dev/null 2>&1; then uv=uv; \
	else $(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/uv.txt && uv=$(BIN)/uv; fi && \
	"$$uv" pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt requirements/uv.txt && \
	"$$uv" pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(WHEEL): $(INSTALLED) README.md LICENSE $(shell find src model score -type f ! -path '*/__pycache__/*')
	@rm -rf build/wheel
	$(BIN)/python -m hatchling build --target wheel --directory build/wheel
	@$(BIN)/python -m zipfile --extract build/wheel/*.whl build/wheel/site
	@touch $@

$(BUNDLE): | $(INSTALLED)
	$(MAKE) run
