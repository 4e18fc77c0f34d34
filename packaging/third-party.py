#!/usr/bin/env python3
"""third-party.py FILE: writes the licence texts of all that is linked into lenscastd and lenscastctl.

Their licences want the texts to go where the programs go. What is linked in is what Cargo resolves without the feature `cloud`,
without what only builds or tests (macros among it); and Rust's standard library with what it is made of. The texts are the files in
each crate's own source. Nothing is fetched that the build has not fetched already. A crate without a file gets the known text of its
licence; one whose licence is not known here is an error, so that nobody ships it unseen. One file for all boards: packages for several
may be made side by side.
"""

import html
import json
import os
import pathlib
import re
import subprocess
import sys

# The glasses', as scripts/cross.sh knows them.
TARGETS = ["aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf", "x86_64-unknown-linux-gnu"]
ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXTS = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
CODE = {".rs", ".c", ".h", ".py", ".sh", ".html", ".json", ".toml"}
RULE = "-" * 100


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def linked():
    """The packages, in the order of their names."""
    platforms = [f"--filter-platform={target}" for target in TARGETS]
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version=1", *platforms))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    reached, waiting = set(), [root]
    while waiting:
        at = waiting.pop()
        # A macro runs in the compiler, with all that it is made of.
        if at in reached or any("proc-macro" in part["kind"] for part in packages[at]["targets"]):
            continue
        reached.add(at)
        for dependency in nodes[at]["deps"]:
            # Neither those of tests ("dev") nor those of build scripts ("build").
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    reached.remove(root)
    return sorted((packages[at] for at in reached), key=lambda package: (package["name"], package["version"]))


def texts(package):
    """Of a package: its own files, or what is known of its licence."""
    folder = pathlib.Path(package["manifest_path"]).parent
    # Below it too: ring, for one, holds parts of others with files of their own.
    files = {path for path in folder.rglob("*") if TEXTS.match(path.name) and path.suffix not in CODE}
    if package["license_file"]:
        files.add(folder / package["license_file"])
    found = [path.read_text("utf-8", "replace") for path in sorted(files) if path.is_file()]
    if found:
        return found
    expression = package["license"] or ""
    choices = re.split(r"\s+OR\s+|/", expression)
    if "Apache-2.0" in choices:
        return [(ROOT / "LICENSE-APACHE").read_text()]
    if "MIT" in choices:
        whose = ", ".join(package["authors"]) or f"the authors of {package['name']}"
        return [re.sub(r"(?m)^Copyright .*$", f"Copyright (c) {whose}", (ROOT / "LICENSE-MIT").read_text())]
    sys.exit(f"third-party.py: {package['name']} {package['version']} has no licence file, and no text is known of {expression!r}")


def standard_library():
    """Name and texts of each part of Rust's standard library, out of the page that comes with the compiler."""
    page = pathlib.Path(run("rustc", "--print", "sysroot").strip()) / "share/doc/rust/COPYRIGHT-library.html"
    own = [(ROOT / "LICENSE-APACHE").read_text(), re.sub(r"(?m)^Copyright .*$", "Copyright (c) The Rust Project contributors",
                                                         (ROOT / "LICENSE-MIT").read_text())]
    parts = [("the Rust standard library", own)]
    if not page.exists():
        print(f"third-party.py: without {page} the parts of Rust's standard library are not listed", file=sys.stderr)
        return parts
    for part in re.split(r"<h3>", page.read_text("utf-8"))[1:]:
        name, version = re.match(r"\W*([\w-]+?)-(\d[^<]*)</h3>", part).groups()
        found = [html.unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", part, re.DOTALL)]
        if found:
            parts.append((f"{name} {version}", found))
    return parts


def main(file):
    packages = linked()
    holders = {}
    for name, found in [(f"{p['name']} {p['version']}", texts(p)) for p in packages] + standard_library():
        for text in found:
            text = "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
            holders.setdefault(" ".join(text.split()), (text, []))[1].append(name)
    lines = [
        "lenscastd and lenscastctl hold libraries of others. These are the texts of their licences.",
        "",
        *(f"{p['name']} {p['version']}  ({p['license'] or 'see below'})  {p['repository'] or ''}".rstrip() for p in packages),
        "the Rust standard library  (MIT OR Apache-2.0)  https://github.com/rust-lang/rust",
    ]
    for text, names in sorted(holders.values(), key=lambda holder: holder[1]):
        lines += ["", RULE, "", "Of " + ", ".join(dict.fromkeys(names)) + ":", "", text]
    file.parent.mkdir(parents=True, exist_ok=True)
    # Another call may be reading it.
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    beside.write_text("\n".join(lines) + "\n", "utf-8")
    beside.replace(file)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: third-party.py FILE")
    main(pathlib.Path(sys.argv[1]))
