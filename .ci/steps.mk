# The steps of the workflows: each `run:` in .github/workflows is one target of this file or of the Makefile.

.PHONY: engine plan pin-access login-aws login-gcp champion summary bundle-digest lock-check sbom required comment status issue readme wheels head checkers fleet scans zizmor release-decide release-hold release-approved image-push release-files release-draft release-verify release-publish release-fetch kubelogin deploy deploy-served smoke mirror azure azure-down kind before e2e image-same rollback-hold rollback-move retrain-log retrain-judge propose log-pins served monitor-log monitor-open monitor-issue spark spark-test databricks databricks-cli databricks-test automl rollback-check azureml azureml-env azureml-test aci scan scan-served refresh refresh-propose template template-propose notebook minutes watch retention

AZUREML := build/azureml/env

# --- ci.yml, and what it calls ---

kind: ## make a cluster of two nodes with kind, which the hosted runner has; kubectl's context is its then
	kind create cluster --name closedloop --wait 180s --config .ci/kind.yaml

e2e: $(INSTALLED) ## test the manifests with IMAGE on the cluster of kubectl's context: kind's, or CONTEXT=its name; LOAD=command: how images get to the nodes
	E2E=1 DOCKER="$(DOCKER)" IMAGE="$(IMAGE)" CONTEXT="$(CONTEXT)" LOAD="$(LOAD)" $(BIN)/pytest -v --capture=no --durations 10 $(wildcard tests/e2e/test_cluster*.py)

before: engine $(BUNDLE) ## get what is served, or build this change's base, as closedloop:before: what `make e2e` upgrades from
	@DOCKER=$(DOCKER) $(FROM_CI) python3 -m pipeline.before

engine: ## check that a container engine answers
	@$(DOCKER) info >/dev/null 2>&1 || { echo 'make: `$(DOCKER) info` finds no container engine; start one, or name its client: DOCKER=path' >&2; exit 2; }

plan: ## which jobs this change needs
	@$(FROM_CI) python3 -m pipeline.plan

pin-access: ## which clouds to log in to, to read the pinned data
	@$(FROM_CI) python3 -m pipeline.pin_access

login-aws: ## log in to AWS by OIDC, to read the pinned data
	@$(FROM_CI) python3 -m pipeline.cloud_login aws

login-gcp: ## log in to Google Cloud by OIDC, to read the pinned data
	@$(FROM_CI) python3 -m pipeline.cloud_login gcp

champion: ## the commit that this change is compared with: the champion's, else BASE_COMMIT
	@$(FROM_CI) python3 -m pipeline.champion

summary: ## add the report of the last run to the summary page
	@cat build/report/summary.md >> "$${GITHUB_STEP_SUMMARY:-/dev/stdout}"

bundle-digest: $(INSTALLED) ## verify the bundle and print its digest; red if it is not EXPECTED
	@$(FROM_CI) $(BIN)/python -m pipeline.bundle

lock-check: $(INSTALLED) ## check that the locks match pyproject.toml
	@$(FROM_CI) $(BIN)/python -m dev.locks --check

sbom: engine $(INSTALLED) ## write what is in the image to build/sbom.json (CycloneDX); red if the lock says otherwise
	@DOCKER=$(DOCKER) IMAGE=$(call quoted,IMAGE) $(FROM_CI) $(BIN)/python -m pipeline.sbom

required: ## the verdict over all jobs, from NEEDS
	@$(FROM_CI) python3 -m pipeline.required

comment: ## write the verdict into the one comment on the pull request PULL_REQUEST
	@$(FROM_CI) python3 -m pipeline.comment

status: ## report NEEDS as a commit status, for a run that was started by hand
	@$(FROM_CI) python3 -m pipeline.notices status

issue: ## keep one issue open while main is red, from NEEDS
	@$(FROM_CI) python3 -m pipeline.notices issue

# --- release.yml ---

release-decide: ## whether this commit of main is released, where to, and what is skipped
	@$(FROM_CI) python3 -m pipeline.release decide

release-hold: ## red while a rollback waits for a person; whether no newer release is published
	@$(FROM_CI) python3 -m pipeline.release hold

release-approved: ## the same, and whether no newer release is on its way either
	@$(FROM_CI) python3 -m pipeline.release approved

image-push: engine ## push the image that was tested, and print its digest
	@DOCKER=$(DOCKER) IMAGE=$(call quoted,IMAGE) $(FROM_CI) python3 -m pipeline.image_push

release-files: $(INSTALLED) ## collect every file of a release in build/release
	@$(FROM_CI) $(BIN)/python -m pipeline.interface
	@$(FROM_CI) python3 -m pipeline.release gather

release-draft: ## create a draft release from build/release
	@$(FROM_CI) python3 -m pipeline.release draft

release-verify: ## verify that main made the image and every file of build/release
	@$(FROM_CI) python3 -m pipeline.release verify

kubelogin: ## install kubelogin, which logs kubectl in to AKS, with the Azure CLI
	az aks install-cli --only-show-errors --client-version 1.34.2 --kubelogin-version v0.2.14 \
	  --install-location build/bin/kubectl --kubelogin-install-location build/bin/kubelogin
	@echo "$(CURDIR)/build/bin" >> "$${GITHUB_PATH:-/dev/null}"

deploy: ## verify build/release, apply its manifests OVERLAY, and wait for the rollout
	@$(FROM_CI) python3 -m pipeline.deploy apply

deploy-served: ## fetch, verify and apply the release that was served last
	@$(FROM_CI) python3 -m pipeline.deploy served

smoke: ## test that the deployed service is the release in build/release
	@$(FROM_CI) python3 -m pipeline.deploy smoke

release-publish: ## publish the draft, and write the move that makes it the served release
	@$(FROM_CI) python3 -m pipeline.release publish

# Azure ML's server takes a plugin, whose libraries are older than those of .venv.
ON_AZUREML = $(filter azureml:%,$(value MLFLOW_TRACKING_URI))

mirror: $(if $(ON_AZUREML),azureml-env,$(INSTALLED)) ## record the run and its verdict in MLflow, at MLFLOW_TRACKING_URI
	PYTHONPATH="$(if $(ON_AZUREML),$(CURDIR)/src:$(CURDIR))" $(if $(ON_AZUREML),$(AZUREML),$(VENV))/bin/python -m model.mirror

scan-served: ## which image is served, to compare a scan with; make the folder that Trivy writes to
	@mkdir -p build/scan
	@$(FROM_CI) python3 -m pipeline.vulnerabilities served

scan: ## judge the scan of build/scan: red for what is neither served nor waived
	@$(FROM_CI) python3 -m pipeline.vulnerabilities

# --- rollback.yml ---

rollback-hold: ## stop every other release, and open the pull request that restores RELEASE; REASON says why
	@$(FROM_CI) python3 -m pipeline.rollback hold

release-fetch: ## download the files of the release RELEASE into build/release
	@$(FROM_CI) python3 -m pipeline.deploy fetch

rollback-move: ## write RELEASE as served, and later ones as withdrawn
	@$(FROM_CI) python3 -m pipeline.rollback move

rollback-check: ## start the checks of the pull request that restores RELEASE
	@$(FROM_CI) python3 -m pipeline.rollback check

# --- check.yml and manifests.yml ---

checkers: ## build what checks workflows, manifests and secrets and is not on PATH, as .ci/tools locks it (CHECKERS=: only some)
	@mkdir -p build/checkers
	@for tool in $${CHECKERS:-$(notdir $(wildcard .ci/tools/*))}; do command -v "$$tool" && continue; \
	  [ -x "build/checkers/$$tool" ] && cmp -s ".ci/tools/$$tool/go.sum" "build/checkers/$$tool.sum" && echo "built: $$tool" && continue; \
	  echo "building $$tool"; \
	  GOBIN=$(CURDIR)/build/checkers CGO_ENABLED=0 go -C ".ci/tools/$$tool" install -trimpath -tags remove_all_sd tool || exit 1; \
	  cp ".ci/tools/$$tool/go.sum" "build/checkers/$$tool.sum"; \
	done
	@if [ "$$GITHUB_PATH" ]; then echo "$(CURDIR)/build/checkers" >> "$$GITHUB_PATH"; fi

# --- retrain.yml ---

retrain-log: ## whether there is a log to train on
	@$(FROM_CI) python3 -m pipeline.propose log

retrain-judge: ## whether the evidence is worth a pull request
	@$(FROM_CI) python3 -m pipeline.propose judge

databricks-cli: ## build the command line of Databricks, as platforms/databricks/cli locks it
	@mkdir -p build/bin
	CGO_ENABLED=0 go -C platforms/databricks/cli build -trimpath -o $(CURDIR)/build/bin/databricks -ldflags \
	  "-X github.com/databricks/cli/internal/build.buildVersion=$$(go -C platforms/databricks/cli list -m -f '{{slice .Version 1}}' github.com/databricks/cli)" \
	  github.com/databricks/cli
	@echo "$(CURDIR)/build/bin" >> "$${GITHUB_PATH:-/dev/null}"

databricks: ## have Databricks train on what is pinned, and fetch the bundle into build/databricks: `make retrain TRAINED=build/databricks` judges it
	@$(FROM_CI) python3 -m pipeline.databricks

propose: ## open the pull request of a retraining, or update it
	@$(FROM_CI) python3 -m pipeline.propose

log-pins: $(INSTALLED) ## pin in the log's sinks what main, the open proposal and the releases name
	@$(FROM_CI) python3 -m pipeline.log_pins
	@$(BIN)/python -m model.log_pins

# --- refresh.yml ---

refresh: $(INSTALLED) ## renew the locks, with a week's cooldown, and the digest of the base image; build/refresh has what changed
	@$(MAKE) --no-print-directory lock UPGRADE=1
	@DOCKER=$(DOCKER) $(FROM_CI) python3 -m pipeline.refresh renew

refresh-propose: ## open the pull request of build/refresh, or update it
	@$(FROM_CI) python3 -m pipeline.refresh

template-propose: ## offer the template's later changes as a pull request of their own
	@$(FROM_CI) python3 -m pipeline.template

template: ## merge the template's later changes into the files here, with what its pull request left to a person (TEMPLATE=OWNER/NAME)
	@$(FROM_CI) python3 -m pipeline.template take

# --- monitor.yml ---

served: ## fetch what the served releases answer with and what they promised, into build/served
	@$(FROM_CI) python3 -m pipeline.served

monitor-log: ## whether there is a log with answers to judge
	@$(FROM_CI) python3 -m pipeline.monitor log

monitor-open: ## whether the open issue says that the served model does worse than promised
	@$(FROM_CI) python3 -m pipeline.monitor open

monitor-issue: ## open the issue on the served model, bring it up to date or close it
	@$(FROM_CI) python3 -m pipeline.monitor

# --- daily.yml and security.yml ---

readme: $(WHEEL) ## run the README's commands for your own fleet on a fresh copy of this commit, and a small make loop
	$(AS_BUILT) $(BIN)/pytest tests/e2e/test_readme.py tests/e2e/test_loop.py

wheels: $(INSTALLED) ## check that every library of the locks has a wheel for macOS and Linux on arm64
	WHEELS=1 $(BIN)/pytest -q -rs tests/repo/test_machines.py

head: ## check that main's newest commit has its release
	@$(FROM_CI) python3 -m pipeline.notices head

watch: ## keep one issue open while something of the pipeline itself needs a person, from NEEDS and GitHub
	@$(FROM_CI) python3 -m pipeline.watch

fleet: $(INSTALLED) ## adopt a fleet that the template was not made for, in a copy below build/fleets, and run and test that (FLEET=: one of three)
	@$(FROM_CI) $(BIN)/python -m dev.fleets $${FLEET:+"$$FLEET"}

spark: $(if $(wildcard requirements/spark.txt),$(VENV)/.spark) ## install pyspark into .venv, beside the locked requirements

spark-test: spark $(WHEEL) ## run the tests that need Spark, on two cores of this machine; skipped without Java
	@[ -f requirements/spark.txt ] || { echo 'skipped: requirements/spark.txt is not here'; exit; }; \
	said=$$($(BIN)/python -c 'from closedloop.spark.session import missing; print(missing() or "")') && \
	if [ -n "$$said" ]; then echo "skipped: $$said"; else $(AS_BUILT) $(BIN)/pytest --durations 5 tests/spark; fi

databricks-test: $(if $(wildcard requirements/databricks.txt),$(VENV)/.databricks) $(WHEEL) ## load the files of platforms/databricks with Databricks' own library, and run its task on Spark here
	$(MAKE) --no-print-directory spark
	$(AS_BUILT) $(BIN)/pytest --durations 5 tests/databricks tests/repo/test_databricks.py

scans: ## which of GitHub's scanners this repository can have
	@$(FROM_CI) python3 -m pipeline.notices scans

zizmor: $(INSTALLED) ## check the workflows against zizmor's online audits; needs GH_TOKEN
	$(BIN)/zizmor --strict-collection --persona auditor --no-progress --quiet .github

# --- platforms/azureml ---

azureml: azureml-env ## deploy build/release to an endpoint of Azure ML (platforms/azureml/README.md has the settings)
	@PYTHONPATH="$(CURDIR)" $(AZUREML)/bin/python -m platforms.azureml.deploy

azureml-env: $(INSTALLED) ## install requirements/azureml.txt, whose libraries are older than those of .venv, into build/azureml/env
	@[ $(AZUREML)/installed -nt requirements/azureml.txt ] && exit; echo 'installing requirements/azureml.txt into $(AZUREML)'; \
	uv=$(BIN)/uv; [ -x "$$uv" ] || uv=uv; "$$uv" venv --quiet --clear --python $(BIN)/python $(AZUREML) && \
	"$$uv" pip sync --quiet --python $(AZUREML)/bin/python --require-hashes requirements/azureml.txt && touch $(AZUREML)/installed

azureml-test: azureml-env $(WHEEL) ## test platforms/azureml with Azure's own libraries, against a stand-in of Azure
	$(AZUREML)/bin/python tests/azureml "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" -q --durations 5

aci: $(INSTALLED) ## run build/release as one container group of Azure (platforms/azureml/README.md has the settings)
	@$(BIN)/python platforms/azureml/aci.py

# --- once, by hand: k8s/azure/README.md ---

azure: ## make what a release needs on Azure; GITHUB_REPOSITORY=owner/name, DRY_RUN=1
	@python3 k8s/azure/azure.py up $(if $(DRY_RUN),--dry-run)

azure-down: ## delete what make azure made, with the log; CONFIRM=the resource group
	@python3 k8s/azure/azure.py down $(if $(DRY_RUN),--dry-run)

# --- by hand, and the help has no room for it ---

automl: $(OPTUNA) ## search for better parameters on the last run's training machines: TRIALS=40 or MINUTES=30; SEED=, PROCESSES=, ENGINE=spark
	@[ -n "$$TRIALS$$MINUTES" ] || { echo 'make automl: give a budget: make automl TRIALS=40, or MINUTES=30' >&2; exit 2; }
	@$(if $(filter spark,$(ENGINE)),$(MAKE) --no-print-directory spark)
	@$(call tidy,$(BIN)/python -m model.automl $(if $(TRIALS),--trials $(call quoted,TRIALS)) $(if $(MINUTES),--minutes $(call quoted,MINUTES)) \
	  $(if $(SEED),--seed $(call quoted,SEED)) $(if $(PROCESSES),--processes $(call quoted,PROCESSES)) $(if $(ENGINE),--engine $(call quoted,ENGINE)) $(WITH))

notebook: $(if $(wildcard requirements/notebook.txt),$(VENV)/.notebook) ## execute notebooks/walkthrough.py into build/notebook/walkthrough.ipynb, with the engine and cluster that are here
	@DOCKER="$(DOCKER)" IMAGE="$(IMAGE)" CONTEXT="$(CONTEXT)" LOAD="$(LOAD)" $(FROM_CI) $(BIN)/python -m dev.notebook

minutes: $(INSTALLED) ## print the minutes of ci.yml, billed and to the verdict, from the workflow files and the last `make ci` (WRITE=1: into .github/README.md)
	@$(FROM_CI) $(BIN)/python -m dev.minutes $(if $(WRITE),write)

retention: ## print which images of old releases and which forgotten drafts would go; CONFIRM=OWNER/NAME removes them
	@$(FROM_CI) $(PYTHON3) -m dev.retention

image-same: engine $(WHEEL) $(BUNDLE) ## build the image twice without a cache and compare every file; takes minutes
	DOCKER=$(DOCKER) DOCKER_BUILD_FLAGS="$(DOCKER_BUILD_FLAGS)" $(BIN)/pytest tests/e2e/test_image_same.py
