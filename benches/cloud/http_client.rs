//! Just enough HTTP to fetch a URL: the additional work of a library would be measured too.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Splits `http://host:port/path`.
pub fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").expect("the cloud under test speaks plain HTTP");
    rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash))
}

/// Fetches a body over a connection of its own.
pub fn get(url: &str) -> io::Result<Vec<u8>> {
    let (host, path) = split(url);
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
    if !status.ends_with("200") {
        return Err(io::Error::other(format!("{path}: {status}")));
    }
    Ok(answer.split_off(end + 4))
}

/// Fetches text.
pub fn text(url: &str) -> String {
    let body = get(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    String::from_utf8(body).expect("a playlist is UTF-8")
}

/// The URL of `name` in the same folder as `url`.
pub fn beside(url: &str, name: &str) -> String {
    let (folder, _) = url.rsplit_once('/').expect("a URL has a path");
    format!("{folder}/{name}")
}

/// Whether a playlist's line names a media segment.
pub fn is_segment(line: &str) -> bool {
    line.strip_suffix(".m4s").is_some_and(|name| !name.starts_with('#'))
}
