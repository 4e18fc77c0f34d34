//! HLS, low latency HLS and DASH out of broadcasts: one set of CMAF segments for all of them.
//!
//! A stream's one task reads its [`Broadcast`](crate::broadcast::Broadcast) and makes parts and segments of the frames,
//! which are held in memory once; requests only read. Paths, below where the router is put:
//!
//! | path | what |
//! |---|---|
//! | `/hls/{id}/index.m3u8` | multivariant playlist; `video.m3u8`, `audio.m3u8` beside it |
//! | `/dash/{id}/manifest.mpd` | manifest; names the segments under `/hls/{id}/` |
//!
//! All of it is 404 until the stream is playable: a whole segment of everything is there.

mod cmaf;
mod cutter;
mod dash;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hls;
mod http;
mod packager;
mod presentation;
mod service;
mod track;
mod viewers;

#[cfg(any(test, fuzzing))]
mod rules;
#[cfg(test)]
mod tests;

pub use service::{Options, Playback, Served, State};
