//! The packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::support::process::run;

/// An architecture with a package.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(dead_code, reason = "the board's tests have but one")]
pub enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    /// The package, built or updated first.
    pub fn deb(self) -> &'static Path {
        static AMD64: OnceLock<PathBuf> = OnceLock::new();
        static ARM64: OnceLock<PathBuf> = OnceLock::new();
        // The board flashes what users get, after a link that takes minutes.
        let (made, arguments): (_, &[&str]) = match self {
            Self::Amd64 => (&AMD64, &["--profile", "ci", "x86_64-unknown-linux-gnu"]),
            Self::Arm64 => (&ARM64, &["aarch64-unknown-linux-gnu"]),
        };
        made.get_or_init(|| made_by("scripts/deb.sh", arguments))
    }

    /// A root file system to install it on. Must not be written to.
    pub fn base(self) -> PathBuf {
        match self {
            Self::Amd64 => made_by("tests/package/make-root.sh", &[]),
            // The emulated board's, from before it is put onto a disk: making another takes minutes.
            Self::Arm64 => made_by("hw-fixtures/board/make-root.sh", &[]).join("root"),
        }
    }
}

/// The path that a script of ours prints as its last line.
fn made_by(script: &str, arguments: &[&str]) -> PathBuf {
    let output = run(&format!("{}/{script}", env!("CARGO_MANIFEST_DIR")), arguments);
    let text = String::from_utf8(output.stdout).expect("a path in UTF-8");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(text.lines().last().expect("a path"));
    assert!(path.exists(), "{script} named {}, which is not there", path.display());
    path
}

/// The contents of the package.
pub fn unpacked(deb: &Path) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    run("dpkg-deb", &["--raw-extract", deb.to_str().expect("UTF-8"), folder.path().to_str().expect("UTF-8")]);
    folder
}

/// The same package with an earlier version and an additional line in `/etc`.
pub fn earlier(deb: &Path) -> (TempDir, PathBuf) {
    let folder = unpacked(deb);
    let control = folder.path().join("DEBIAN/control");
    let text = fs::read_to_string(&control).expect("a control file");
    let version = text.lines().find(|line| line.starts_with("Version: ")).expect("a version").to_owned();
    fs::write(&control, text.replace(&version, "Version: 0.0.1-1")).expect("written");
    let config = folder.path().join("etc/lenscast/lenscastd.toml");
    let text = fs::read_to_string(&config).expect("a configuration");
    fs::write(&config, text + "# as it was\n").expect("written");
    // The checksums are those of the original files.
    let _ = fs::remove_file(folder.path().join("DEBIAN/md5sums"));
    let tree = folder.path().to_str().expect("UTF-8").to_owned();
    let out = TempDir::new().expect("a folder");
    let file = out.path().join("earlier.deb");
    run("dpkg-deb", &["-Zgzip", "-z1", "--build", &tree, file.to_str().expect("UTF-8")]);
    (out, file)
}
