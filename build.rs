//! Says in words what `include_bytes!` would only call a missing file.

fn main() {
    const PLAYER: &str = "web/node_modules/hls.js/dist/hls.min.mjs";
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CLOUD").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed={PLAYER}");
    if !std::path::Path::new(PLAYER).exists() {
        println!(
            "cargo::error={PLAYER} is missing; the watch page needs it. Run: npm ci --prefix web --ignore-scripts"
        );
    }
}
