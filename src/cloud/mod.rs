//! The application `lenscast-cloud`: the gateway of apps and glasses, the store, and the one task that owns all state.

pub mod accounts;
pub mod config;
pub mod control;
mod core;
pub mod credential;
mod documents;
pub mod gateway;
pub mod http_client;
pub mod http_server;
mod live;
mod metrics;
pub mod opus_feed;
pub mod photo_delivery;
mod photos;
pub mod registry;
pub mod restream;
pub mod store;
pub mod task;
pub mod thumbnails;
mod timestamp;
pub mod tls;
mod view;
pub mod watch_page;
pub mod webhook;
