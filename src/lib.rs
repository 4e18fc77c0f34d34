//! lenscast makes smart glasses go live.
//!
//! Imports run only downwards in this list:
//!
//! | module | what |
//! |---|---|
//! | `device` | the application `lenscastd`: wires what follows together; its one task owns all state |
//! | [`camera`] | V4L2 devices, the modes they offer, who holds them |
//! | `media` | GStreamer: capture, encode, publish; the only module that names it |
//! | `link` | sockets to the phone, the cloud and `lenscastctl` |
//! | [`policy`] | every decision, as pure state machines: `(event, now) -> actions` |
//! | [`configuration`] | how both applications read their files |
//! | [`protocol`] | serde types of every hop, statuses, causes; no I/O |
//! | [`toml_file`] | reads what people write |

pub mod camera;
pub mod configuration;
pub mod device;
pub mod link;
pub mod media;
pub mod policy;
pub mod protocol;
pub mod toml_file;
