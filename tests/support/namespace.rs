//! A network of the test's own to cut and to slow down: a network namespace behind a veth pair.
//!
//! The namespace has no name; it lives as long as a process in it, so nothing is left on the machine whatever ends the
//! test. The host's end is `lcv<N>`, and `N` also chooses the addresses: 10.213.x.y/30. Needs root.

#![expect(unsafe_code, reason = "geteuid")]

use std::fs;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::clock::poll_until;
use super::process::{Process, run};

/// How many /30 networks fit in 10.213.0.0/16.
const NETWORKS: u32 = 16_384;

/// The namespace and the link to it.
pub struct Namespace {
    holder: Process,
    link: String,
    address: Ipv4Addr,
}

impl Namespace {
    /// Makes one with a link at full speed.
    pub fn new() -> Self {
        // SAFETY: geteuid has no preconditions and cannot fail.
        assert_eq!(unsafe { libc::geteuid() }, 0, "a network namespace needs root");
        let holder = Process::spawn(Command::new("unshare").args(["--net", "sleep", "infinity"]).stdin(Stdio::null()));
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let pid = holder.pid().to_string();
        let ours = of("self");
        poll_until("a new network namespace", Duration::from_secs(10), || {
            of(&pid).filter(|n| Some(n) != ours.as_ref())
        });
        // Another test may have the first choice already; the link's name is what decides.
        let (link, number) = (0..64)
            .map(|attempt| (holder.pid() * 7 + attempt) % NETWORKS)
            .map(|number| (format!("lcv{number}"), number))
            .find(|(link, _)| {
                let add = ["link", "add", link, "type", "veth", "peer", "name", "uplink", "netns", &pid];
                Command::new("ip").args(add).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
            })
            .expect("a free name for a veth pair");
        let base = u32::from(Ipv4Addr::new(10, 213, 0, 0)) + number * 4;
        let this = Self { holder, link, address: Ipv4Addr::from(base + 2) };
        run("ip", &["address", "add", &format!("{}/30", Ipv4Addr::from(base + 1)), "dev", &this.link]);
        run("ip", &["link", "set", &this.link, "up"]);
        this.inside(&["ip", "address", "add", &format!("{}/30", this.address), "dev", "uplink"]);
        this.inside(&["ip", "link", "set", "uplink", "up"]);
        this.inside(&["ip", "link", "set", "lo", "up"]);
        this
    }

    /// The address of a server in it, as the daemon sees it.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What to put before a command so that it runs in it.
    pub fn prefix(&self) -> [String; 5] {
        ["nsenter", "--target", &self.holder.pid().to_string(), "--net", "--"].map(str::to_owned)
    }

    /// Limits what goes into it, in kbit/s, with a short queue, as a slow uplink does.
    pub fn limit(&self, kbit: u32) {
        let rate = format!("{kbit}kbit");
        let arguments = ["qdisc", "replace", "dev", &self.link, "root", "tbf"];
        run("tc", &[&arguments[..], &["rate", &rate, "burst", "16kb", "latency", "400ms"]].concat());
    }

    /// Has connections into it controlled by this algorithm of the kernel's: `bbr`, `cubic`. Other connections of the
    /// machine keep theirs.
    pub fn congestion_control(&self, algorithm: &str) {
        let route = ["route", "replace", &self.address.to_string(), "dev", &self.link, "congctl", algorithm];
        run("ip", &route);
    }

    /// Full speed again.
    pub fn unlimit(&self) {
        run("tc", &["qdisc", "delete", "dev", &self.link, "root"]);
    }

    /// Nothing passes any more, in neither direction, and nobody is told.
    pub fn cut(&self) {
        let rules = "add table inet cut; \
            add chain inet cut in { type filter hook input priority 0; policy drop; }; \
            add chain inet cut out { type filter hook output priority 0; policy drop; }";
        self.inside(&["nft", rules]);
    }

    /// Everything passes again.
    pub fn mend(&self) {
        self.inside(&["nft", "delete table inet cut"]);
    }

    fn inside(&self, command: &[&str]) {
        let prefix = self.prefix();
        let arguments: Vec<&str> = prefix[1..].iter().map(String::as_str).chain(command.iter().copied()).collect();
        run(&prefix[0], &arguments);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The link goes with the namespace, but a little later; a failure means that it is gone already.
        let _ = Command::new("ip").args(["link", "delete", &self.link]).stderr(Stdio::null()).status();
    }
}
