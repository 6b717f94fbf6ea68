# What a stranger and the CI need; `make help` lists it.

CARGO ?= cargo
ARGS ?=

# The trees of the tests lie in memory where there is room, so that no slow disk fails a test; TMPDIR=/some/disk puts them elsewhere.
SHM_IS_LARGE := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4000000 { print "yes" }')
# Most tests wait for a daemon most of the time, so twice as many as processors run at once.
test: export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))
test: export TMPDIR := $(or $(TMPDIR),$(if $(SHM_IS_LARGE),/dev/shm,/tmp))

# As root, a test that cannot have what it needs fails instead of being left out; SERSYNC_NO_SKIPS= allows that again.
test: export SERSYNC_NO_SKIPS ?= $(if $(filter 0,$(shell id -u)),1)

.PHONY: help demo test check lint bench fuzz soak oracle screenshots

help: ## This list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 15

demo: ## Mirror a directory to a private rsync daemon on this machine (ARGS=--once: end by itself)
	@scripts/demo $(ARGS)

test: ## Install what the tests need and run them all (ARGS=NAME: only these)
	@scripts/install-missing cc rsync ssh sshd pgrep setpriv unshare chattr inotifywait perl curl openssl lowntfs-3g
	@$(CARGO) test --locked $(ARGS)
	@old=$$(scripts/old-rsync); if [ -n "$$old" ] && [ -z "$(ARGS)" ]; then \
		SERSYNC_OLD_RSYNC=$$old $(CARGO) test --locked --test it -- --ignored old_rsync; \
	else \
		echo "no rsync as in stock Debian 12 is to be had here: the tests with an old receiver are left out"; \
	fi

check: ## Only compile, tests included
	@$(CARGO) check --locked --all-targets

lint: ## Formatting and clippy, as the CI does it
	@$(CARGO) fmt --check
	@$(CARGO) clippy --locked --all-targets -- -D warnings

bench: ## Measure against rsync by hand and, when it is installed, lsyncd
	@scripts/install-missing cc rsync ssh sshd
	@scripts/bench $(ARGS)

fuzz: ## Feed random bytes to what reads files and answers
	@scripts/fuzz $(ARGS)

oracle: ## Compare the copy with what plain rsync makes of the same words (SEED=N ROUNDS=N PAIRS=N ONLY=NAME,NAME)
	@scripts/install-missing cc rsync
	@SERSYNC_SEED=$(SEED) SERSYNC_ORACLE_ROUNDS=$(ROUNDS) SERSYNC_ORACLE_PAIRS=$(PAIRS) SERSYNC_ORACLE_ONLY=$(ONLY) \
		$(CARGO) test --locked --test it -- --ignored --nocapture every_option_of_the_table

soak: ## Mirror under load and failures for a long time (ARGS='SECONDS SEED')
	@scripts/install-missing cc rsync ssh sshd
	@scripts/soak $(ARGS)

screenshots: ## Pictures of the status page in a headless Chromium, into target/pictures and docs/images
	@command -v chromium-headless-shell chromium google-chrome > /dev/null || \
		{ echo "install chromium-headless-shell (Debian) or chromium first"; exit 1; }
	@$(CARGO) test --locked --test it -- --ignored page::browser::pictures
	@ls target/pictures/*.png docs/images/*.png
