# Each target is a line or two that you could type yourself.
SHELL := /bin/bash
.DEFAULT_GOAL := help
INVENTORY ?= inventory/local
SERVICE ?= mlflow
# What tests need first; `test` has done it when it calls for them.
PREPARE := prepare
VENV := .venv/bin
PIP := pip install --quiet --disable-pip-version-check
# Asks for sudo's password only where there is one to ask for; ARGS are further options of ansible-playbook.
BECOME := $(shell [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null || echo --ask-become-pass)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
export PATH := $(CURDIR)/$(VENV):$(CURDIR)/.venv/servers/usr/sbin:$(PATH):/usr/sbin

.PHONY: help deploy check status logs passwords uninstall compose test lint unit store default bare prepare machine clean

help: ## Print this list
	@grep -hE '^[a-z ]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z ]+):.*## (.*)/  make \1\t\2/' | expand -t 18

deploy: $(VENV)/.deploy ## Deploy the platform (INVENTORY=inventory/local is this machine) and prove that it works
	ansible-playbook -i "$(INVENTORY)" $(BECOME) $(ARGS) site.yml

check: $(VENV)/.deploy ## Show what a deployment would change, without changing it
	ansible-playbook -i "$(INVENTORY)" $(BECOME) $(ARGS) site.yml --check --diff

status: $(VENV)/.deploy ## Show the platform's containers, and how they are
	ansible mlflow -i "$(INVENTORY)" --become $(BECOME) $(ARGS) -a "docker ps --all --filter label=com.docker.compose.project={{ stack_name }}"

logs: $(VENV)/.deploy ## Show the end of a container's log (SERVICE=mlflow)
	ansible mlflow -i "$(INVENTORY)" --become $(BECOME) $(ARGS) -a "docker logs --timestamps --tail 100 {{ stack_name }}-$(SERVICE)"

passwords: $(VENV)/.deploy ## Print who logs in where, with which password
	ansible-playbook -i "$(INVENTORY)" $(ARGS) playbooks/passwords.yml

uninstall: $(VENV)/.deploy ## Remove the platform and keep its data (ARGS="-e purge=mlflow-stack" removes that too)
	ansible-playbook -i "$(INVENTORY)" $(BECOME) $(ARGS) playbooks/uninstall.yml

compose: $(VENV)/.deploy ## Write compose.yaml for the platform onto its host
	ansible-playbook -i "$(INVENTORY)" $(BECOME) $(ARGS) playbooks/compose.yml

# The deployments go on beside all the others, one after another; each line has its target's name.
test: ## Test everything: lint, deployments to hosts made on the spot, unit tests
	$(MAKE) --jobs=2 prepare
	$(MAKE) --jobs=3 PREPARE= default bare test-lint test-store test-unit

test-%:
	set -o pipefail; $(MAKE) --no-print-directory $* 2>&1 | sed --unbuffered 's/^/$*: /'

lint: $(VENV)/.test ## Check style and types
	yamllint --strict .
	ansible-lint
	ruff check .
	ruff format --check .
	mypy
	mypy action_plugins/deployment_lock.py
	mypy molecule/shared/tests

unit: $(PREPARE) ## Run the unit tests
	pytest --numprocesses=auto --dist=loadfile tests

store: $(PREPARE) ## Run those of the artifact store, on real FTP servers
	pytest --numprocesses=auto --dist=loadfile mlflow_ftps

default bare: $(PREPARE) ## Deploy to a host made on the spot, and test the platform there
	set -o pipefail; molecule test -s $@ --no-command-borders 2>&1 | sed --unbuffered 's/^/$@: /'

prepare: $(VENV)/.test machine ## Install what the tests need on this machine: Docker, mmdebstrap, a browser, servers

machine: $(VENV)/.deploy
	ansible-playbook -i inventory/local $(BECOME) tests/prepare.yml

clean: ## Remove the virtual environment
	rm -rf .venv

$(VENV)/python:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "python3 is $$(python3 -V), and 3.11 or newer is needed."; exit 1; }
	@python3 -c 'import ensurepip' 2>/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y python3-venv; }
	python3 -m venv .venv

# Of Ansible's collections a fraction is used, which Python compiles by itself; of what tests import most is, in many processes at
# once. pip would compile with one core.
$(VENV)/.deploy: $(VENV)/python requirements.txt
	$(PIP) --no-compile -r requirements.txt
	@touch $@

$(VENV)/.test: $(VENV)/.deploy requirements-dev.txt
	$(PIP) --no-compile -r requirements-dev.txt
	$(PIP) --no-compile --no-deps mcp-portainer==2.45.3
	$(VENV)/python -m compileall -qq -j 0 -x '/(ansible_collections|tests?)/' .venv/lib || true
	@touch $@
