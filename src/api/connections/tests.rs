//! Clients that are too slow, and too many.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::{StreamExt as _, stream};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

/// A server with two answers, a short one and one without end.
struct Served {
    address: SocketAddr,
    closing: CancellationToken,
    task: JoinHandle<()>,
    /// Ends when the answer without end is dropped.
    left: oneshot::Receiver<()>,
}

async fn served(most: usize) -> Served {
    let listener = Listener::tcp(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.address().unwrap();
    let (held, left) = oneshot::channel::<()>();
    let held = Arc::new(held);
    let endless = async move || {
        let pieces = stream::repeat(Bytes::from_static(&[b'x'; 65536]));
        Body::from_stream(pieces.map(move |piece| {
            let _until_it_is_dropped = &held;
            Ok::<_, Infallible>(piece)
        }))
    };
    let routes = Router::new().route("/", get(async || "well")).route("/endless", get(endless));
    let closing = CancellationToken::new();
    let shutdown = closing.clone().cancelled_owned();
    let task = tokio::spawn(answer_at_most(most, listener, routes, shutdown));
    Served { address, closing, task, left }
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// Sends a request, and reads the beginning of its answer.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = [0; 2048];
    let length = stream.read(&mut answer).await.unwrap_or(0);
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_and_a_connection_without_one_are_closed() {
    let served = served(8).await;
    for begin in ["", "GET / HTTP/1.1\r\nhost:"] {
        let mut slow = TcpStream::connect(served.address).await.unwrap();
        slow.write_all(begin.as_bytes()).await.unwrap();
        let asked = Instant::now();
        assert!(!rest(&mut slow).await.contains("200"));
        assert!(asked.elapsed() >= HEAD - Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    served.closing.cancel();
    served.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_answer_is_left() {
    let Served { address, closing, task, left } = served(8).await;
    let mut unread = TcpStream::connect(address).await.unwrap();
    unread.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut begin = [0; 12];
    unread.read_exact(&mut begin).await.unwrap();
    assert_eq!(begin, *b"HTTP/1.1 200");
    let asked = Instant::now();
    // The server drops what holds the other end with the routes, which last until it has ended.
    closing.cancel();
    left.await.unwrap_err();
    assert!(asked.elapsed() >= UNREAD, "{:?}", asked.elapsed());
    task.await.unwrap();
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_one_that_ends_makes_room() {
    let served = served(2).await;
    let (mut first, mut second) = (
        TcpStream::connect(served.address).await.unwrap(),
        TcpStream::connect(served.address).await.unwrap(),
    );
    for stream in [&mut first, &mut second] {
        assert!(ask(stream).await.starts_with("HTTP/1.1 200"));
    }
    let mut third = TcpStream::connect(served.address).await.unwrap();
    let refused = ask(&mut third).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("too-many"), "{refused}");
    let (_, body) = refused.split_once("\r\n\r\n").unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["status"], 503);
    assert!(refused.contains(&format!("content-length: {}\r\n", body.len())), "{refused}");
    drop(third);
    drop(first);
    loop {
        let mut next = TcpStream::connect(served.address).await.unwrap();
        if ask(&mut next).await.starts_with("HTTP/1.1 200") {
            break;
        }
    }
    assert!(ask(&mut second).await.starts_with("HTTP/1.1 200"), "it is not disturbed");
    served.closing.cancel();
    assert_eq!(rest(&mut second).await, "");
    served.task.await.unwrap();
}

#[tokio::test]
async fn what_is_not_http_and_too_large_a_head_are_refused() {
    let served = served(8).await;
    for (sent, status) in [
        ("GARBAGE\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\na b: c\r\n\r\n".to_owned(), "400"),
        (format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(3 * LARGEST_HEAD)), "431"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200)), "431"),
    ] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        // It may be refused before all of it is written.
        let _refused = stream.write_all(sent.as_bytes()).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *format!("HTTP/1.1 {status}").as_bytes(), "{:.40}", sent);
    }
    served.closing.cancel();
    served.task.await.unwrap();
}
