//! Tests on real camera, USB, sound and encoder drivers, in the rig of `hw-fixtures/`: the built daemon in a guest,
//! real servers on the host.
//!
//! One CPU is emulated, on a machine that may be busy: tests expect 80 % of the frame rate, and times are three times
//! the promised ones.

#[path = "../support/mod.rs"]
mod support;

mod acceptance;
mod camera;
mod encoder;
mod endurance;
mod live;
mod modes;
mod network;
mod rig;
mod sound;
mod webcam;
