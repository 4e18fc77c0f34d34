.PHONY: run test check test-hw soak-hw bench clean

# The main job: installs what is missing, builds, starts a local RTMP server and goes live.
run:
	scripts/install-dependencies.sh run
	scripts/run.sh

# All tests. What cannot run here fails and says why.
test:
	scripts/install-dependencies.sh test
	scripts/test.sh

# Format, lints and the tests that need no server: for the time between two edits.
check:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --quiet --lib --bins

# Only the tests on real camera, sound and encoder drivers, in the rig of hw-fixtures/.
test-hw:
	scripts/install-dependencies.sh test
	scripts/test.sh --test hardware

# The endurance tests on real drivers with more cycles: 200 unplugs and as many streams, about ten minutes.
soak-hw:
	scripts/install-dependencies.sh test
	LENSCAST_CYCLES=200 scripts/test.sh --test hardware endurance

# Measurements beside gst-launch-1.0 and ffmpeg; writes benches/RESULTS.md. ARGS=--quick sees in two minutes that it works.
bench:
	scripts/install-dependencies.sh test
	cargo bench --locked --bench budgets -- $(ARGS)

clean:
	cargo clean
