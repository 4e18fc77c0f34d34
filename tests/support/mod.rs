//! What the tests across processes and the benchmarks stand on: real servers, a real network to cut, and the built
//! daemon. Nothing in here knows how the daemon works inside; it speaks the control socket and reads what arrived.
//!
//! Every process started here dies with the test, however that ends; every server listens on a free port of a loopback
//! or veth address; every wait has a deadline and says what it waited for.
#![allow(dead_code, unused_imports, reason = "each test program and benchmark uses its own part")]

pub mod board;
pub mod browser;
pub mod certificate;
pub mod clock;
pub mod cloud;
#[cfg(feature = "cloud")]
pub mod cloud_server;
pub mod control;
pub mod daemon;
pub mod flv;
pub mod guest;
pub mod guest_daemon;
pub mod half_open;
pub mod heavy;
pub mod namespace;
pub mod nginx;
pub mod phone;
pub mod probe;
pub mod process;
pub mod recordings;
pub mod schema;
pub mod scrape;
pub mod sdk_app;
pub mod sys;
pub mod viewing;
pub mod watch;

pub use board::Board;
pub use browser::Browser;
pub use certificate::Certificate;
pub use clock::{monotonic, poll_until};
pub use cloud::CloudStandIn;
pub use control::Control;
pub use daemon::Daemon;
pub use guest::Guest;
pub use guest_daemon::GuestDaemon;
pub use half_open::HalfOpen;
pub use namespace::Namespace;
pub use nginx::Nginx;
pub use phone::PhoneStandIn;
pub use process::Process;
pub use recordings::Recordings;
pub use scrape::Scrape;
pub use sys::Sys;
pub use viewing::Viewing;
pub use watch::Watch;
