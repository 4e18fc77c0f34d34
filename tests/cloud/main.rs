//! Tests of lenscast-cloud across processes, with publishers, servers, viewers and apps from other projects.
#![cfg(feature = "cloud")]

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod endpoints;
mod flv_source;
mod frames;
mod gateway;
mod glasses;
mod http_server;
mod ingest;
mod link_proxy;
mod live_source;
mod material;
mod metrics;
mod playback;
mod reconnect;
mod restream;
mod sdk;
mod store;
mod tls;
mod viewer;
mod whep;
