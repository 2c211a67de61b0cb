# The ways to run, test and check Postonce. The logic lives in scripts under infra/; `make help`
# lists these targets.

.DEFAULT_GOAL := help
.PHONY: help up down status logs env seed reset test e2e bench bench-growth chaos chaos-mutations \
        chaos-recovery fmt lint deny sqlx-prepare openapi \
        env-example check-generated check-api check-scripts ci

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'

up: ## set up, build and start everything; print a sample transaction's journey and the URLs
	@infra/stack.sh up
down: ## stop what `make up` started, and nothing else
	@infra/stack.sh down
status: ## what runs, and whether it is ready
	@infra/stack.sh status
logs: ## follow the logs: all, or of one part with SERVICE=api|publisher|worker|kafka|postgres
	@infra/stack.sh logs $(SERVICE)
env: ## the running stack's settings as shell assignments: eval "$(make -s env)"
	@infra/stack.sh env
seed: ## sample accounts and about a hundred transactions, through the API
	@infra/stack.sh seed
reset: ## stop the stack and remove its data
	@infra/stack.sh reset

test: ## everything the tests need, then all tests; ARGS='-p api' is handed to cargo test
	@infra/local/test.sh infra/checks/test.sh $(ARGS)
e2e: ## only the end-to-end tests
	@infra/local/test.sh infra/checks/test.sh -p e2e $(ARGS)
bench: ## measure speed and cost, check the ledger behind it (20 minutes); QUICK=1 takes 3
	@infra/local/bench.sh run $(if $(QUICK),--quick) $(ARGS)
bench-growth: ## the same with 1 and 10 million transactions in the tables (up to 20 GB of disk)
	@infra/local/bench.sh growth $(ARGS)

chaos: ## faults under load, after which nothing may be wrong (FAULTS=500: 35 to 50 minutes; FAULTS=1: one round; SEED=, ROUND=, ISOLATION=)
	@infra/local/chaos.sh run $(ARGS)
chaos-mutations: ## break each rule behind the promises once: the fault suite has to notice
	@infra/local/chaos.sh mutations $(ARGS)
chaos-recovery: ## how long it takes until payments are posted again behind a kill
	@infra/local/chaos.sh recovery

fmt: ## format the code
	cargo fmt --all
lint: ## format check, and clippy with warnings denied
	cargo fmt --all --check
	SQLX_OFFLINE=true cargo clippy --workspace --all-targets --locked -- -D warnings
deny: ## licences, bans and sources of the dependencies
	@infra/checks/deny.sh
sqlx-prepare: ## regenerate .sqlx, the checked queries' offline data
	@infra/local/test.sh infra/checks/sqlx.sh write
openapi: ## regenerate docs/openapi.json from the code
	@infra/checks/openapi.sh write
env-example: ## regenerate .env.example and the README's table of settings from the services' --help
	@infra/checks/settings.sh write
check-generated: ## fail if .sqlx, docs/openapi.json or .env.example differ from the code
	@infra/checks/openapi.sh check
	@infra/checks/settings.sh check
	@infra/local/test.sh infra/checks/sqlx.sh check
check-api: ## hold the API to its OpenAPI document: generate clients, run schemathesis (minutes)
	@infra/local/test.sh infra/openapi/check.sh
check-scripts: ## shellcheck over every script, where it is installed
	@infra/checks/scripts.sh
ci: ## what CI runs
	@.ci/run
