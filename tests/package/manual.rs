//! What comes with the programs: it follows Debian's policy, is valid roff, and completes.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::deb::{Architecture, unpacked};
use crate::support::process::run;

#[test]
fn lintian_finds_no_errors() {
    for architecture in [Architecture::Amd64, Architecture::Arm64] {
        let deb = architecture.deb().to_str().unwrap();
        let output = Command::new("lintian")
            .args(["--fail-on", "error", "--allow-root", "--no-user-dirs", deb])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_device_s_programs_are_small_and_carry_nothing_of_the_cloud() {
    for architecture in [Architecture::Amd64, Architecture::Arm64] {
        let package = unpacked(architecture.deb());
        // The other one is built without link-time optimization; this is the one that users get.
        if architecture == Architecture::Arm64 {
            let size = package.path().join("usr/bin/lenscastd").metadata().unwrap().len();
            assert!(size <= 5_000_000, "lenscastd for {architecture:?} has {size} bytes");
        }
        for program in ["lenscastd", "lenscastctl"] {
            let bytes = std::fs::read(package.path().join("usr/bin").join(program)).unwrap();
            for word in ["cloud.sock", "rml_rtmp", "SQLite format 3", "#EXTM3U"] {
                let there = bytes.windows(word.len()).any(|window| window == word.as_bytes());
                assert!(!there, "{program} for {architecture:?} has {word:?}");
            }
        }
    }
}

#[test]
fn the_texts_of_all_licences_and_the_documents_come_along() {
    for architecture in [Architecture::Amd64, Architecture::Arm64] {
        let package = unpacked(architecture.deb());
        let documents = package.path().join("usr/share/doc/lenscast");
        let shipped = ["CHANGELOG.md", "SECURITY.md", "docs/control.schema.json", "docs/protocol.md"];
        for path in shipped.map(Path::new) {
            assert!(documents.join(path.file_name().unwrap()).is_file(), "{} for {architecture:?}", path.display());
        }
        let texts = std::fs::read_to_string(documents.join("THIRD-PARTY.txt")).unwrap();
        let (list, texts) = texts.split_once("\n---").unwrap();
        let listed = |name: &str| list.lines().any(|line| line.starts_with(&format!("{name} ")));
        let rule = "-".repeat(100);
        // The text that stands under the crate's name, whoever else it is of.
        let has = |name: &str, words: &str| {
            texts.split(&rule).any(|part| {
                part.lines().any(|line| line.starts_with("Of ") && line.contains(name)) && part.contains(words)
            })
        };
        for (name, words) in [
            ("tokio", "Copyright (c) Tokio Contributors"),
            ("ring", "Permission to use, copy, modify, and/or distribute"),
            ("subtle", "Redistributions in binary form"),
            ("gstreamer", "Apache License"),
            ("rustls-webpki", "Except as otherwise noted, this project is licensed under the following"),
        ] {
            assert!(listed(name) && has(&format!("{name} "), words), "{name} for {architecture:?}");
        }
        assert!(has("the Rust standard library", "The Rust Project contributors"), "{architecture:?}");
        for name in ["axum", "rml_rtmp", "proptest", "schemars", "serde_derive"] {
            assert!(!listed(name), "{name} is not in the programs for {architecture:?}");
        }
    }
}

#[test]
fn manual_pages_render_without_warnings_and_cover_every_subcommand() {
    let package = unpacked(Architecture::Amd64.deb());
    let pages = package.path().join("usr/share/man");
    let mut names = Vec::new();
    for section in ["man1", "man8"] {
        for page in std::fs::read_dir(pages.join(section)).unwrap() {
            let page = page.unwrap().path();
            run("gunzip", &[page.to_str().unwrap()]);
            let page = page.with_extension("");
            let output = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&page).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "");
            let output = Command::new("groff").args(["-man", "-ww", "-Tutf8", "-z"]).arg(&page).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
            names.push(page.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    let ctl = package.path().join("usr/bin/lenscastctl");
    for subcommand in
        completions(&package.path().join("usr/share/bash-completion/completions/lenscastctl"), &["lenscastctl", ""])
    {
        if subcommand.starts_with('-') || subcommand == "help" {
            continue;
        }
        assert!(names.contains(&format!("lenscastctl-{subcommand}.1")), "{subcommand} has no page");
        run(ctl.to_str().unwrap(), &[&subcommand, "--help"]);
    }
    assert!(names.contains(&"lenscastd.8".to_owned()) && names.contains(&"lenscastctl-camera-acquire.1".to_owned()));
}

#[test]
fn bash_completes_subcommands_and_options() {
    let package = unpacked(Architecture::Amd64.deb());
    let script = package.path().join("usr/share/bash-completion/completions/lenscastctl");
    assert!(completions(&script, &["lenscastctl", "st"]).starts_with(&[
        "status".to_owned(),
        "start".to_owned(),
        "stop".to_owned()
    ]));
    assert!(completions(&script, &["lenscastctl", "start", "--wi"]).contains(&"--width".to_owned()));
    assert!(completions(&script, &["lenscastctl", "camera", "a"]).contains(&"acquire".to_owned()));
}

/// bash's completions for the last of these words.
fn completions(script: &Path, words: &[&str]) -> Vec<String> {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let last = words.len() - 1;
    let program = format!(
        "set -eu; source '{script}'; complete -p lenscastctl > /dev/null; COMP_WORDS=({words}) COMP_CWORD={last}; \
         _lenscastctl lenscastctl '{now}' '{before}' || true; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script = PathBuf::from(script).display(),
        words = quoted.join(" "),
        now = words[last],
        before = words[last - 1],
    );
    let output = run("bash", &["--norc", "-c", &program]);
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
