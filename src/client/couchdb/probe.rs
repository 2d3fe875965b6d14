//! Finds out whether a port speaks TLS or plain HTTP, after a request that spoke the other one failed.
//!
//! Nothing secret is sent. It must not know why a request failed.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a port may take to connect and to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether a plain HTTP request gets an answer of HTTP.
pub(super) async fn speaks_http(host: &str, port: u16) -> bool {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    answer(host, port, request.as_bytes()).await.is_some_and(|start| start == *b"HTTP/")
}

/// Whether the beginning of a TLS handshake gets an answer of TLS.
pub(super) async fn speaks_tls(host: &str, port: u16) -> bool {
    /// The first bytes of a handshake and of an alert, before the version.
    const RECORDS: [[u8; 2]; 2] = [[22, 3], [21, 3]];
    let Some(hello) = hello(host) else { return false };
    answer(host, port, &hello)
        .await
        .is_some_and(|start| RECORDS.iter().any(|one| start.starts_with(one)))
}

/// The first message of a handshake.
fn hello(host: &str) -> Option<Vec<u8>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        // The handshake is never finished, so no certificate is looked at.
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(bare(host).to_owned()).ok()?;
    let mut connection = ClientConnection::new(Arc::new(config), name).ok()?;
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).ok()?;
    Some(hello)
}

/// A host without the brackets around an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The first five bytes of the answer to these bytes.
async fn answer(host: &str, port: u16, bytes: &[u8]) -> Option<[u8; 5]> {
    let asking = async {
        let mut stream = TcpStream::connect((bare(host), port)).await.ok()?;
        stream.write_all(bytes).await.ok()?;
        let mut start = [0; 5];
        stream.read_exact(&mut start).await.ok()?;
        Some(start)
    };
    tokio::time::timeout(PATIENCE, asking).await.ok()?
}
