//! The daemon's metrics over HTTP, for Prometheus: only `GET /metrics`, one request per connection. So little HTTP
//! needs no server framework, for which the glasses have no room.
//!
//! The values are the device task's at the moment of the request. A connection has one deadline for everything; only a
//! few may be open at a time, and any further one is closed unread.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::control::accept::ordered;
use crate::metrics::CONTENT_TYPE;

/// The device's task answers with the text.
pub type Scrape = oneshot::Sender<String>;

/// Limit for a connection, from beginning to end.
const LIMIT: Duration = Duration::from_secs(3);
/// Maximum number of connections. Prometheus uses one, and two of them may be asking.
const CONNECTIONS: usize = 4;
/// Maximum length of a request's head, bytes; Prometheus sends 300.
const HEAD: usize = 4096;
/// Delay before accepting again when the process has no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Listens at `address`.
///
/// # Errors
/// The system's reason.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Answers until `shutdown` turns true or its sender is dropped; then all its tasks have ended.
pub async fn serve(listener: TcpListener, scrapes: mpsc::Sender<Scrape>, mut shutdown: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = ordered(&mut shutdown) => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok(_) if connections.len() >= CONNECTIONS => {}
            Ok((stream, _)) => {
                let scrapes = scrapes.clone();
                connections.spawn(async move {
                    let _ = timeout(LIMIT, connection(stream, &scrapes)).await; // who is too slow asks again
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                tokio::select! {
                    () = tokio::time::sleep(EXHAUSTED) => {}
                    () = ordered(&mut shutdown) => break,
                }
            }
        }
    }
    connections.shutdown().await;
}

async fn connection(mut stream: TcpStream, scrapes: &mpsc::Sender<Scrape>) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    let (status, body) = match asked(&head) {
        Ok(()) => {
            let (reply, answer) = oneshot::channel();
            let _ = scrapes.send(reply).await; // then the answer fails too
            match answer.await {
                Ok(text) => ("200 OK", text),
                Err(_) => ("503 Service Unavailable", String::new()),
            }
        }
        Err(status) => (status, String::new()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await
}

/// Reads up to the empty line, or to the limit; a head that was cut is not a valid request.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(512);
    while head.len() < HEAD && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let room = (HEAD - head.len()) as u64;
        if (&mut *stream).take(room).read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}

/// Whether the metrics are requested, otherwise the status that says why not.
fn asked(head: &[u8]) -> Result<(), &'static str> {
    if !head.ends_with(b"\r\n\r\n") {
        return Err("400 Bad Request");
    }
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target, version) = (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if words.next().is_some() || !version.starts_with(b"HTTP/1.") {
        return Err("400 Bad Request");
    }
    if target.split(|&byte| byte == b'?').next() != Some(b"/metrics") {
        return Err("404 Not Found");
    }
    if method != Some(b"GET") {
        return Err("405 Method Not Allowed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The complete answer to the request.
    async fn exchange(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_numbers_are_at_one_path_and_nothing_is_anywhere_else() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (scrapes, mut asked) = mpsc::channel::<Scrape>(1);
        let (end, ended) = watch::channel(false);
        let server = tokio::spawn(serve(listener, scrapes, ended));
        let device = tokio::spawn(async move {
            while let Some(reply) = asked.recv().await {
                reply.send("up 1\n".into()).unwrap();
            }
        });
        let answer = exchange(address, b"GET /metrics?x=y HTTP/1.1\r\nhost: h\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nup 1\n"), "{answer}");
        assert!(answer.contains("content-length: 5\r\n") && answer.contains(CONTENT_TYPE), "{answer}");
        let long = [b"GET /metrics HTTP/1.1\r\nx: ".as_slice(), &[b'x'; HEAD]].concat();
        let refused: [(&[u8], _); 7] = [
            (b"GET / HTTP/1.1\r\n\r\n", "404"),
            (b"GET /metricsx HTTP/1.1\r\n\r\n", "404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
            (b"GET /metrics\r\n\r\n", "400"),
            (b"GET /metrics HTTP/2\r\n\r\n", "400"),
            (b"\r\n\r\n", "400"),
            (&long[..HEAD], "400"),
        ];
        for (request, status) in refused {
            let answer = exchange(address, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(answer.contains("content-length: 0\r\n"), "{answer}");
        }
        end.send_replace(true);
        server.await.unwrap();
        device.await.unwrap();
    }

    #[tokio::test]
    async fn those_who_say_nothing_take_no_more_than_their_places_and_their_time() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (scrapes, _asked) = mpsc::channel::<Scrape>(1);
        let (end, ended) = watch::channel(false);
        let server = tokio::spawn(serve(listener, scrapes, ended));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut turned_away = TcpStream::connect(address).await.unwrap();
        let mut rest = Vec::new();
        // Closed unread; a reset counts too.
        let _ = timeout(LIMIT, turned_away.read_to_end(&mut rest)).await.expect("at once");
        for stream in &mut silent {
            let _ = timeout(2 * LIMIT, stream.read_to_end(&mut rest)).await.expect("within the limit");
        }
        assert!(rest.is_empty());
        end.send_replace(true);
        server.await.unwrap();
    }
}
