.PHONY: run flash test cross deb check deny fuzz test-hw test-board soak soak-hw bench bench-uplink bench-cloud clean

# The main job: installs what is missing, builds, starts cloud and daemon, goes live and prints where to watch.
run:
	scripts/install-dependencies.sh run
	scripts/run.sh

# Puts lenscast on glasses or a board and starts it there: HOST=user@board by ssh, or ADB=1. Says what works there; takes itself back
# if it does not come up.
flash:
	scripts/flash.sh $(if $(ADB),--adb,$(HOST))

# All tests. What cannot run here fails and says why.
test:
	scripts/install-dependencies.sh test
	scripts/test.sh

# The glasses' programs, stripped, in target/TARGET/release, without anything of the cloud.
TARGET ?= aarch64-unknown-linux-gnu
cross:
	scripts/cross.sh $(TARGET)

# The same as a Debian package, in target/debian. Without TARGET for this machine.
deb:
	scripts/deb.sh $(if $(filter command line environment,$(origin TARGET)),$(TARGET))

# Format, lints and the tests that need no server: for the time between two edits.
check:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features cloud -- -D warnings
	cargo test --locked --features cloud --quiet --lib --bins

# Licences, versions and sources of what is built in; needs no network beside the registry. Known holes need one: `cargo deny check
# advisories`.
deny:
	scripts/install-dependencies.sh deny
	cargo deny --locked check licenses bans sources

# Each parser fuzzed for SECONDS; fuzz/README.md. Fails if anything was found.
SECONDS = 60
fuzz:
	scripts/install-dependencies.sh fuzz
	scripts/fuzz.sh $(SECONDS)

# Only the tests on real camera, sound and encoder drivers, in the rig of hw-fixtures/.
test-hw:
	scripts/install-dependencies.sh test
	scripts/test.sh --test hardware

# Only those on the emulated board of hw-fixtures/board/, and all of them, of which `make test` has the shorter ones.
test-board:
	scripts/install-dependencies.sh test
	scripts/test.sh --test board

# Daemon, cloud, apps and viewers under faults drawn from a seed, for MINUTES; writes benches/RESULTS-soak.md. SEED=n repeats
# a run. `make test` has two minutes of it.
MINUTES ?= 30
SEED ?=
soak:
	scripts/install-dependencies.sh test
	LENSCAST_SOAK_MINUTES=$(MINUTES) LENSCAST_SOAK_SEED=$(SEED) LENSCAST_SOAK_REPORT=benches/RESULTS-soak.md \
		scripts/test.sh --test soak -- --nocapture

# The endurance tests on real drivers with more cycles: 200 unplugs and as many streams, about five minutes. Prints what grew.
soak-hw:
	scripts/install-dependencies.sh test
	LENSCAST_CYCLES=200 scripts/test.sh --test hardware endurance -- --nocapture

# Measurements beside gst-launch-1.0 and ffmpeg, then those of the uplink; writes benches/RESULTS.md and benches/RESULTS-uplink.md.
# ARGS=--quick sees in two minutes that it works, without the uplink's.
bench:
	scripts/install-dependencies.sh test
	cargo bench --locked --bench budgets -- $(ARGS)
	$(if $(ARGS),,cargo bench --locked --bench uplink)

# Of these only how the bitrate follows the uplink, beside the rules of others; writes benches/RESULTS-uplink.md. ARGS=--simulated
# takes seconds.
bench-uplink:
	scripts/install-dependencies.sh test
	cargo bench --locked --bench uplink -- $(ARGS)

# The same of the cloud: time to live, glass to glass, how many viewers; writes benches/RESULTS-cloud.md.
bench-cloud:
	scripts/install-dependencies.sh test
	cargo bench --locked --features cloud --bench cloud -- $(ARGS)

clean:
	cargo clean
