//! What `scripts/install-dependencies.sh` does to a machine, seen by a stand-in for apt and dpkg.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Debian 12's sources, and a machine that has a qemu-utils of a later release, which breaks this one's emulators.
/// `$MACHINE/installed` is what is there, `$MACHINE/lost` what apt is to forget, `$MACHINE/held` what it must not change.
const APT_GET: &str = r#"#!/bin/bash
[ "$1" != update ] || exit 0
simulate= remove=1 wanted=()
for argument; do
  case $argument in
    --simulate) simulate=1 ;;
    --no-remove) remove= ;;
    install | -*) ;;
    *) wanted+=("$argument") ;;
  esac
done
if [[ " ${wanted[*]}" == *" qemu-system-arm"* ]] && grep -q '^qemu-utils 1:10' "$MACHINE/installed" &&
  { [[ " ${wanted[*]}" != *" qemu-utils=1:7"* ]] || [ -e "$MACHINE/held" ]; }; then
  [ -n "$remove" ] || { echo "E: Packages need to be removed but remove is disabled." >&2; exit 100; }
  [ -n "$simulate" ] || sed -i '/^qemu-utils /d' "$MACHINE/installed"
fi
[ -z "$simulate" ] || exit 0
for package in "${wanted[@]}"; do
  name=${package%%=*}
  grep -qsx "$name" "$MACHINE/lost" && continue
  [ "$name" = "$package" ] || sed -i "/^$name /d" "$MACHINE/installed"
  grep -q "^$name " "$MACHINE/installed" || echo "$name 1:7.2" >> "$MACHINE/installed"
done
"#;
const APT_CACHE: &str = "#!/bin/sh\necho \"$2 | 1:7.2 | a source\"\n";
const DPKG_QUERY: &str = r#"#!/bin/bash
version=$(sed -n "s/^$3 //p" "$MACHINE/installed")
[ -n "$version" ] || exit 1
case $2 in *Status*) printf installed ;; *) printf %s "$version" ;; esac
"#;
const ROOT: &str = "#!/bin/sh\necho 0\n";

struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let this = Self(TempDir::new().expect("a folder"));
        let programs = [("apt-get", APT_GET), ("apt-cache", APT_CACHE), ("dpkg-query", DPKG_QUERY), ("id", ROOT)];
        for (name, text) in programs {
            this.put(name, text);
            let path = this.0.path().join(name);
            fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("the folder is ours");
        }
        this.put("installed", "make 4.3\nqemu-utils 1:10.0\n");
        this
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).expect("the folder is ours");
    }

    /// Wants make, which is there, qemu-utils, which is there in a later version, and two that are not.
    fn install(&self) -> Output {
        self.run(&["packages", "make", "qemu-utils", "qemu-system-arm", "u-boot-qemu"])
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let path = std::env::var("PATH").expect("a PATH");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-dependencies.sh");
        let mut command = Command::new(script);
        command.args(arguments);
        command.env("PATH", format!("{}:{path}", self.0.path().display())).env("MACHINE", self.0.path());
        command.output().expect("bash is there")
    }

    fn installed(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.path().join("installed")).expect("it is there");
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn what_is_there_is_not_taken_away_to_make_room() {
    let machine = Machine::new();
    let output = machine.install();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(machine.installed(), ["make 4.3", "qemu-system-arm 1:7.2", "qemu-utils 1:7.2", "u-boot-qemu 1:7.2"]);
    assert!(said(&output).contains("going back from qemu-utils 1:10.0 to 1:7.2"), "{}", said(&output));
    assert_eq!(said(&machine.install()), "", "nothing is missing now");
}

#[test]
fn nothing_is_installed_where_something_would_have_to_go() {
    let machine = Machine::new();
    machine.put("held", "");
    let before = machine.installed();
    let output = machine.install();
    assert_eq!((output.status.code(), machine.installed()), (Some(1), before), "{}", said(&output));
    assert!(said(&output).contains("nothing was installed"), "{}", said(&output));
}

#[test]
fn what_apt_did_not_bring_is_named() {
    let machine = Machine::new();
    machine.put("lost", "u-boot-qemu\n");
    let output = machine.install();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("still missing after apt-get install: u-boot-qemu"), "{}", said(&output));
}

#[test]
fn whatever_builds_needs_libclang() {
    let machine = Machine::new();
    machine.put("id", "#!/bin/sh\necho 1000\n");
    for group in ["run", "test", "deny", "fuzz", "cross", "deb"] {
        let output = machine.run(&[group]);
        let named = said(&output).lines().next().is_some_and(|line| line.split(' ').any(|word| word == "libclang-dev"));
        assert!(named, "{group}: {}", said(&output));
    }
}
