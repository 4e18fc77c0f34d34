//! A photo while the stream runs.

use std::thread::sleep;
use std::time::Duration;

use crate::figures::{Figure, Row, Section, Unit};
use crate::publishers::{APP, HD, warm_daemon};
use crate::support::{Nginx, monotonic};
use crate::{Extent, milliseconds, progress};

/// Measures it.
pub fn section(extent: &Extent) -> Section {
    let nginx = Nginx::start();
    let (recordings, daemon) = (nginx.recordings(), warm_daemon());
    let mut control = daemon.control();
    control.granted(&HD.request(&nginx.url("live", "key"), "stream-1"));
    recordings.wait_frames(0, 60, Duration::from_secs(15));
    let mut taken = Vec::new();
    for _ in 0..extent.photos {
        sleep(Duration::from_millis(fastrand::u64(200..700)));
        let asked = monotonic();
        let jpeg = control.photo(APP).expect("the owner of the stream may take photos");
        taken.push(milliseconds(monotonic().saturating_sub(asked)));
        assert!(jpeg.starts_with(&[0xff, 0xd8]), "not a JPEG");
    }
    daemon.finish();
    progress(&format!("photos while live: {taken:.0?} ms"));
    let what = "photo while live";
    Section {
        title: "A photo while live",
        method: "1280x720 at 30 fps; from the request on the control socket to the last byte of the JPEG.".to_owned(),
        rows: vec![
            Row::new(what, Unit::Milliseconds, taken.clone()),
            Row::new(what, Unit::Milliseconds, taken).figure(Figure::Max).budget(300.0),
        ],
    }
}
