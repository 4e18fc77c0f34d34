//! Sockets to the cloud and to `lenscastctl`. Nothing here decides anything: what arrives becomes an event for the
//! device's task, what that task has to say is sent.

pub mod cloud;
pub mod control;
pub mod control_client;
pub mod metrics;
