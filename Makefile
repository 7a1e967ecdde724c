# One command each; everything they need is installed by `make setup` when it is missing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# Built files live outside the clone, so that every clone shares them.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/borrow-rate-engine/target
DATA ?= bre-data
PORT ?= 8000

# Every target: none is a file.
.PHONY: $(shell sed -nE 's/^([a-z0-9-]+):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## install PostgreSQL and Redis when they are missing
	@scripts/setup

run: setup ## build and start everything on this machine
	cargo build --profile quick --locked -p engine
	@mkdir -p "$(DATA)"
	@[ -e "$(DATA)/bre.toml" ] || install -m 600 scripts/one-machine.toml "$(DATA)/bre.toml"
	@echo "Starting; Ctrl-C stops everything cleanly."
	exec "$$CARGO_TARGET_DIR/quick/bre" up --data "$(DATA)" --port "$(PORT)"

install: ## bre, its completion, manual pages and a systemd unit, below PREFIX (usually /usr/local) and DESTDIR
	cargo build --release --locked -p engine
	@BRE="$$CARGO_TARGET_DIR/release/bre" PREFIX="$(or $(PREFIX),/usr/local)" DESTDIR="$(DESTDIR)" scripts/install

test: setup ## everything that CI runs
	@scripts/test

slow-odd-clusters: setup ## clusters of every make backed up and restored; WAL segments of 1, 64 and 1,024 MB streamed, with the memory it takes (minutes, 15 GB)
	cargo test --locked -p recovery --test it -- --ignored odd:: --nocapture
	cargo test --locked -p backup --test it -- --ignored --exact odd::segments::a_stream_takes_no_more_memory_for_the_largest_segments --nocapture

slow-cache-copies: setup ## copies of the cache's append-only file under constant writes and rewrites, Redis and Valkey; SEEDS (1000) of each
	@scripts/valkey || true
	SEEDS="$(or $(SEEDS),1000)" cargo test --locked -p backup --test it -- --exact cache::copies_under_constant_writes_and_rewrites_all_load --nocapture

generated-client: setup ## a client that a public generator makes from our description prices GME
	@scripts/generated-client

python-client: setup ## check and test the Python client against an engine
	@scripts/python-client

schemathesis: setup ## ask the API, by its own description, all that schemathesis can think of
	@scripts/schemathesis

pages: setup ## open the engine's pages in a headless browser
	@scripts/pages

drill: setup ## the ten-fold drill whose times are judged
	cargo build --profile quick --locked -p engine
	@scripts/drill

torture: setup ## SIGKILL at seeded moments, again and again; SEED and ROUNDS choose and repeat a run
	@command -v python3 >/dev/null || scripts/setup python3
	cargo build --profile quick --locked -p engine
	@scripts/torture

.PHONY: slow-losses
slow-losses: setup ## every part lost right after every step of a recovery, and once more; SEED and ROUNDS (usually 65: all pairs) choose and repeat
	ROUNDS="$${ROUNDS:-65}" scripts/in-memory cargo nextest run -p engine --no-capture losses::

torture-locates: setup ## SIGKILL amid locates, again and again; SEED and ROUNDS (usually 2000) choose and repeat a run
	ROUNDS=$${ROUNDS:-2000} cargo test --locked -p services --test it locates_under_fire::killed -- --nocapture

slow-uses: setup ## orders at two gateways with kills; SEED, CLIENTS (500), ORDERS in all (10000) and KILLS (100) choose and repeat a run
	CLIENTS=$${CLIENTS:-500} ORDERS=$${ORDERS:-10000} KILLS=$${KILLS:-100} cargo test --locked -p services --test it uses_under_fire::orders -- --nocapture

slow-many-rates: setup ## how long a verification takes with a million rates, and its memory; ROWS, and BATCH (20000) of a delivery, choose
	ROWS="$(or $(ROWS),1000000)" BATCH="$(or $(BATCH),20000)" cargo test --profile quick --locked -p services --test it -- --ignored --exact many_rates::a_verification_with_many_rates_is_measured --nocapture

slow-tamper: setup ## every way to tamper that the suite knows; CASES (all; a number, or a part of a name) and SEED choose and repeat
	CASES="$${CASES:-all}" cargo test --locked -p services --test it -- tamper:: --nocapture
	CASES="$${CASES:-all}" cargo test --locked -p engine --test it -- tamper:: anchors:: --nocapture --test-threads 1

slow-histories: ## seeded histories of a plan: edits, pauses, kills, clocks that jump, two drivers; SEED and HISTORIES (10000) choose and repeat
	HISTORIES=$${HISTORIES:-10000} cargo test --profile quick --locked -p jobs --test it -- --exact histories::no_appointment_is_kept_twice_and_none_is_forgotten --nocapture

slow-many-runs: setup ## how long bre job list and /metrics take with very many run records; RUNS (100000) chooses
	RUNS="$(or $(RUNS),100000)" scripts/in-memory cargo test --profile quick --locked -p engine --test it -- \
		--ignored --exact many_records::jobs_with_very_many_records_are_looked_at --nocapture

slow-calendars: ## the shipped calendar, every day of it, against PyPI's exchange_calendars
	@scripts/slow-calendars

slow-hostile: setup ## books that are sent to do harm, what each costs; FILES (usually 200) and SEED (1) choose and repeat
	FILES="$(or $(FILES),200)" SEED="$(or $(SEED),1)" cargo test --locked -p engine --test it -- --ignored --exact hostile::two_hundred_hostile_books --nocapture

torture-spare: setup ## a warm spare promoted after a loss under load, ROUNDS times (usually 20); SEED repeats a run, SECONDS_MAX judges the times
	@command -v python3 >/dev/null || scripts/setup python3
	cargo build --profile quick --locked -p engine
	@scripts/torture-spare

table-back: setup ## a table emptied by mistake under load, and the seconds of each step until it is back; ROWS (usually 2000000), WRITERS, SECONDS_MAX
	@command -v python3 >/dev/null || scripts/setup python3
	cargo build --profile quick --locked -p engine
	@scripts/table-back

retention: ## expiry against a model, over many seeds; SEED and SEEDS (usually 10000) choose
	BRE_RETENTION_SEED=$(or $(SEED),1) BRE_RETENTION_SEEDS=$(or $(SEEDS),10000) cargo test -p repository --profile quick --lib retention::property -- --nocapture

crash-seeds: ## machines stopped at any write; SEEDS (500) and SEED (1) choose and repeat them, LOG=1 tells one's life
	SEED="$(SEED)" SEEDS="$(SEEDS)" cargo test --profile quick --locked -p recovery --test it -- --nocapture --exact crashes::stopped_at_any_write

s3-ceph: ## the store suite and object lock on Ceph's S3 server (minutes and 2 GB at the first time, as root)
	cargo test --locked -p aws --test it --no-run
	@scripts/ceph-s3 run cargo test --locked -p aws --test it -- --ignored --exact s3::on_ceph --nocapture

s3-faults: ## the store on a bad line; SEED (1) and SEEDS (usually 200) choose and repeat
	@scripts/moto
	SEED="$(SEED)" SEEDS="$(or $(SEEDS),200)" cargo test --locked -p aws --test it -- faults:: --nocapture

s3-outage: ## the bucket is away for MINUTES (usually 3) while the database goes on, then for more than is kept
	@scripts/moto
	MINUTES="$(or $(MINUTES),3)" cargo test --locked -p aws --test it -- outage:: --nocapture

bench: ## side-by-side benchmarks, printed as ratios
	@scripts/setup wrk zstd
	cargo build --release --locked -p engine -p bench
	"$$CARGO_TARGET_DIR/release/bench"

bench-backup: ## pgBackRest, Barman and bre side by side; ROUNDS, SIZE (MB) and CASES choose
	@scripts/bench-backup

slow: ## what is too long for every run of make test
	@grep -hE '^slow-[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

slow-kubernetes: setup ## a namespace on a real kube-apiserver backed up, wiped, restored and compared (5 minutes and 4 GB at the first time)
	cargo test --locked -p recovery -p engine --test it --no-run
	@scripts/kubernetes run cargo test --locked -p recovery --test it -- --ignored --exact application_state::a_wiped_namespace_is_restored_to_the_same_bytes_on_a_real_cluster --nocapture
	HELM="$$(scripts/helm)" scripts/kubernetes run cargo test --locked -p engine --test it -- --ignored --nocapture --test-threads 1 application_state::real_cluster

slow-kubernetes-many: setup ## how long OBJECTS (10000) of BYTES (10000) on a cluster take to be backed up, first and unchanged, and the memory
	OBJECTS="$(or $(OBJECTS),10000)" BYTES="$(or $(BYTES),10000)" scripts/in-memory cargo test --profile quick --locked -p engine --test it -- --ignored --exact application_state::ten_thousand_objects_are_measured --nocapture

slow-infrastructure: setup ## roles, stacks, states of Terraform, RDS and ElastiCache on moto, by the real clients, kept and restored
	@scripts/moto
	@scripts/awscli
	cargo test --locked -p backup --test it -- --include-ignored infrastructure:: --nocapture
	cargo test --locked -p recovery --test it -- --include-ignored infrastructure:: --nocapture
	cargo test --locked -p operations --lib -- --include-ignored provider_check:: --nocapture
	cargo test --locked -p engine --test it -- --include-ignored infrastructure:: --nocapture

slow-secrets-manager: ## secrets deleted, waiting for deletion and changed, restored into Secrets Manager on moto
	@scripts/moto
	@scripts/awscli
	cargo test --locked -p recovery --test it -- --include-ignored secrets_manager:: --nocapture

slow-any-day: setup ## the tests with their clock moved, on eleven days; MOMENTS and TESTS (a nextest filter) choose
	@scripts/any-day $(if $(TESTS),-E '$(TESTS)')

slow-flaky: setup ## the tests that race, ROUNDS (usually 50) times under load, without a second try
	@scripts/flaky

fmt: ## format the code
	cargo fmt --all
