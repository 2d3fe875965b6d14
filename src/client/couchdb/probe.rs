//! Finds out, after a request failed, whether a port speaks TLS or plain HTTP, and which certificate it shows.
//!
//! Nothing secret is sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct};
use rustls::{RootCertStore, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a port may take to connect and to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether a plain HTTP request gets an answer of HTTP. One with the status 400 does not count: a port of
/// TLS sends it too.
pub(super) async fn speaks_http(host: &str, port: u16) -> bool {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    let start: Option<[u8; 12]> = answer(host, port, request.as_bytes()).await;
    start.is_some_and(|start| start.starts_with(b"HTTP/") && !start.ends_with(b" 400"))
}

/// Whether the beginning of a TLS handshake gets an answer of TLS.
pub(super) async fn speaks_tls(host: &str, port: u16) -> bool {
    /// The first bytes of a handshake and of an alert, before the version.
    const RECORDS: [[u8; 2]; 2] = [[22, 3], [21, 3]];
    let Some(hello) = hello(host) else { return false };
    let start: Option<[u8; 2]> = answer(host, port, &hello).await;
    start.is_some_and(|start| RECORDS.contains(&start))
}

/// The certificate that a port shows, of which nothing is verified.
pub(super) async fn certificate(host: &str, port: u16) -> Option<CertificateDer<'static>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let witness = Arc::new(Witness { provider: Arc::clone(&provider), shown: Mutex::default() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let name = ServerName::try_from(bare(host).to_owned()).ok()?;
    let mut connection = ClientConnection::new(Arc::new(config), name).ok()?;
    let handshake = async {
        let mut stream = TcpStream::connect((bare(host), port)).await.ok()?;
        let mut piece = [0; 4096];
        // The witness accepts no certificate, so the handshake ends with an error.
        loop {
            let mut out = Vec::new();
            while connection.wants_write() {
                connection.write_tls(&mut out).ok()?;
            }
            stream.write_all(&out).await.ok()?;
            let length = stream.read(&mut piece).await.ok()?;
            let mut came = piece.get(..length).filter(|came| !came.is_empty())?;
            while !came.is_empty() {
                connection.read_tls(&mut came).ok()?;
                if connection.process_new_packets().is_err() {
                    return Some(());
                }
            }
        }
    };
    // What was shown before any end counts.
    let _ended = tokio::time::timeout(PATIENCE, handshake).await;
    witness.shown.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Notes a server's certificate, and accepts none.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    shown: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = Some(end_entity.clone().into_owned());
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(CertificateError::BadSignature.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
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

/// The first `N` bytes of the answer to these bytes.
async fn answer<const N: usize>(host: &str, port: u16, bytes: &[u8]) -> Option<[u8; N]> {
    let asking = async {
        let mut stream = TcpStream::connect((bare(host), port)).await.ok()?;
        stream.write_all(bytes).await.ok()?;
        let mut start = [0; N];
        stream.read_exact(&mut start).await.ok()?;
        Some(start)
    };
    tokio::time::timeout(PATIENCE, asking).await.ok()?
}
