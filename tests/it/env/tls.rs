//! Certificates as people make them with `openssl`, and a door before a server that shows them.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// Runs `openssl` in a folder. Its files are named by the arguments.
#[track_caller]
pub fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(arguments.split(' '));
    let output = command.output().expect("openssl is installed");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A self-signed certificate and its key, as `NAME.pem` and `NAME.key`, with more arguments.
pub fn self_signed(folder: &Path, name: &str, more: &str) {
    let subject = format!(
        "req -x509 -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.pem -subj /CN={name}"
    );
    openssl(folder, format!("{subject} {more}").trim());
}

/// A certificate that `ca` has signed, as `NAME.pem` and `NAME.key`, with these extensions and this end.
pub fn signed(folder: &Path, ca: &str, name: &str, extensions: &str, end: &str) {
    openssl(
        folder,
        &format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"),
    );
    fs::write(folder.join("ext"), extensions).unwrap();
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -out {name}.pem -extfile ext {end}"
        ),
    );
}

/// A port that speaks TLS for the server at `upstream`, with this certificate. Clients have to show one
/// that `clients` has signed, if that is given.
pub fn before(
    upstream: SocketAddr,
    folder: &Path,
    name: &str,
    clients: Option<&str>,
) -> SocketAddr {
    listen(upstream, config(folder, name, clients), None)
}

/// The same, of a web server that answers a plain request with 400, as nginx, Apache and Go do. It reports
/// each connection that has ended.
pub fn before_polite(
    upstream: SocketAddr,
    folder: &Path,
    name: &str,
    ended: Sender<()>,
) -> SocketAddr {
    listen(upstream, config(folder, name, None), Some(ended))
}

fn config(folder: &Path, name: &str, clients: Option<&str>) -> Arc<ServerConfig> {
    let pem = |name: &str, kind: &str| -> PathBuf { folder.join(format!("{name}.{kind}")) };
    let chain = vec![CertificateDer::from_pem_file(pem(name, "pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(pem(name, "key")).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(pem(ca, "pem")).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    Arc::new(config.with_single_cert(chain, key).unwrap())
}

fn listen(
    upstream: SocketAddr,
    config: Arc<ServerConfig>,
    polite: Option<Sender<()>>,
) -> SocketAddr {
    /// The first byte of a handshake.
    const HANDSHAKE: u8 = 22;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let (config, polite) = (Arc::clone(&config), polite.clone());
            std::thread::spawn(move || {
                let mut first = [0];
                let is_plain = client.peek(&mut first).is_ok() && first != [HANDSHAKE];
                if polite.is_some() && is_plain {
                    let refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
                    let _ = client.write_all(refusal);
                } else {
                    // A client that does not trust the server goes away.
                    drop(pass_on(client, config, upstream));
                }
                polite.map(|ended| ended.send(()));
            });
        }
    });
    address
}

/// One request and its answer.
fn pass_on(
    client: TcpStream,
    config: Arc<ServerConfig>,
    upstream: SocketAddr,
) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut client = StreamOwned::new(connection, client);
    let mut upstream = TcpStream::connect(upstream)?;
    let mut request = Vec::new();
    while !is_whole(&request) {
        let mut piece = [0; 4096];
        let length = client.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        request.extend_from_slice(&piece[..length]);
    }
    upstream.write_all(&request)?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.conn.send_close_notify();
    client.flush()
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}
