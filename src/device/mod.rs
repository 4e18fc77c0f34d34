//! The application `lenscastd`.

pub mod config;
pub mod core;
mod doctor;
mod meter;
mod metrics;
mod network;
mod plan;
mod remember;
mod service;
pub mod task;
