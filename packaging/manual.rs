//! `manual FOLDER DATE`: writes manual pages and shell completions into `FOLDER/man` and `FOLDER/completions`, from the command lines
//! that the programs parse. An example only for Cargo, which then builds its dependencies for nothing else.
//!
//! With the feature `cloud` it writes those of lenscast-cloud and `lenscastctl cloud` too.

#[cfg(feature = "cloud")]
#[allow(dead_code, reason = "likewise")]
#[path = "../src/bin/lenscast-cloud/args.rs"]
mod lenscast_cloud;
#[allow(dead_code, reason = "what was parsed is read in the programs")]
#[path = "../src/bin/lenscastctl/args/mod.rs"]
mod lenscastctl;
#[allow(dead_code, reason = "likewise")]
#[path = "../src/bin/lenscastd/args.rs"]
mod lenscastd;

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

/// What a daemon's page says besides.
struct Places {
    files: &'static [(&'static str, &'static str)],
    see_also: &'static [&'static str],
}

const LENSCASTD: Places = Places {
    files: &[
        ("/etc/lenscast/lenscastd.toml", "The configuration; every key with its default is in it."),
        ("/etc/lenscast/lenscastd.d/*.toml", "Over it, in the order of their names."),
        ("/usr/share/lenscast/pipelines/*.toml", "Encoder profiles."),
        ("/etc/lenscast/pipelines/*.toml", "Your own, in place of or beside those."),
        ("/run/lenscast/control.sock", "The control socket; for members of the group lenscast."),
        ("/var/lib/lenscast", "What outlives the daemon."),
    ],
    see_also: &["lenscastctl(1)", "systemctl(1)", "journalctl(1)"],
};

#[cfg(feature = "cloud")]
const LENSCAST_CLOUD: Places = Places {
    files: &[
        ("/etc/lenscast/lenscast-cloud.toml", "The configuration."),
        ("/etc/lenscast/lenscast-cloud.d/*.toml", "Over it, in the order of their names."),
        ("/run/lenscast/cloud.sock", "The control socket."),
        ("/var/lib/lenscast", "Apps, glasses, and streams that outlive a restart."),
    ],
    see_also: &["lenscastctl-cloud(1)", "systemctl(1)", "journalctl(1)"],
};

fn main() -> anyhow::Result<()> {
    let usage = "usage: manual FOLDER DATE";
    let mut arguments = std::env::args().skip(1);
    let (folder, date) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let (man, completions) = (Path::new(&folder).join("man"), Path::new(&folder).join("completions"));
    // What an earlier version had and this one has not must not stay.
    for folder in [&man, &completions] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
    }
    page(lenscastd::Arguments::command(), "8", &date, Some(&LENSCASTD), &man)?;
    #[cfg(feature = "cloud")]
    page(lenscast_cloud::Arguments::command(), "8", &date, Some(&LENSCAST_CLOUD), &man)?;
    let mut tool = lenscastctl::Arguments::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut tool, "lenscastctl", &completions)?;
    }
    let mut tool = without_help(lenscastctl::Arguments::command());
    tool.build();
    pages(&tool, &date, &man)
}

/// Without the subcommand `help`, which needs no page.
fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

/// A page for it and for each of its subcommands.
fn pages(command: &Command, date: &str, folder: &Path) -> anyhow::Result<()> {
    page(command.clone(), "1", date, None, folder)?;
    command.get_subcommands().try_for_each(|command| pages(command, date, folder))
}

fn page(command: Command, section: &str, date: &str, places: Option<&Places>, folder: &Path) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let man = Man::new(command).section(section).date(date).manual("lenscast");
    let mut rendered = Vec::new();
    man.source(concat!("lenscast ", env!("CARGO_PKG_VERSION"))).render(&mut rendered)?;
    let mut text = in_lines(&String::from_utf8(rendered)?);
    if let Some(places) = places {
        text += ".SH FILES\n";
        for (path, what) in places.files {
            text.extend([".TP\n\\fI", &escaped(path), "\\fR\n", what, "\n"]);
        }
        let pages = places.see_also.iter().filter_map(|page| page.strip_suffix(')')?.split_once('('));
        let pages: Vec<_> = pages.map(|(page, section)| format!("\\fB{}\\fR({section})", escaped(page))).collect();
        text.extend([".SH \"SEE ALSO\"\n", &pages.join(", "), "\n"]);
    }
    fs::write(folder.join(format!("{name}.{section}")), text)?;
    Ok(())
}

/// With what `--help` says at its end in lines of their own, as it is there, and under a name that says something.
fn in_lines(page: &str) -> String {
    let mut text = String::new();
    let mut heading = "";
    for line in page.lines() {
        let first = heading == ".SH EXTRA" && text.ends_with("NOTES\n");
        if line.starts_with(".SH") {
            heading = line;
        }
        text += match (heading, line) {
            (".SH EXTRA", ".SH EXTRA") => ".SH NOTES\n".to_owned(),
            // An indented line is one of its own as it is.
            (".SH EXTRA", line) if !first && !line.starts_with(' ') => format!(".br\n{line}\n"),
            (_, line) => format!("{line}\n"),
        }
        .as_str();
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('-', "\\-")
}
