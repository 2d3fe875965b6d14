//! Which certificates are trusted, which one is sent, and in words what is wrong with one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::{ClientBuilder, Identity};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage,
    RootCertStore, SignatureScheme,
};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::error;

/// How encrypted connections are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The only certificates that are trusted: of authorities, or a server's own.
    pub ca_file: Option<PathBuf>,
    /// The certificate that is sent to the server, with its chain, and perhaps with its key.
    pub client_cert: Option<PathBuf>,
    /// The key of that certificate, if it has a file of its own.
    pub client_key: Option<PathBuf>,
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTls(String);

impl Tls {
    /// Checks that its files can be used. Blocks.
    pub fn check(&self) -> Result<(), BadTls> {
        self.apply(reqwest::Client::builder()).map(drop)
    }

    /// Applies it to a client. Blocks.
    pub(super) fn apply(&self, builder: ClientBuilder) -> Result<ClientBuilder, BadTls> {
        let identity = self.identity()?;
        let Some(path) = &self.ca_file else {
            return match &identity {
                None => Ok(builder),
                Some((_, _, pem)) => match Identity::from_pem(pem) {
                    Ok(identity) => Ok(builder.identity(identity)),
                    Err(error) => Err(self.bad_identity(&error)),
                },
            };
        };
        let unusable = |error: rustls::Error| BadTls(format!("TLS cannot be used: {error}"));
        let verifier = Pinned::of(path)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((chain, key, _)) => config
                .with_client_auth_cert(chain, key)
                .map_err(|error| self.bad_identity(&error))?,
        };
        Ok(builder.tls_backend_preconfigured(config))
    }

    fn bad_identity(&self, error: &dyn std::fmt::Display) -> BadTls {
        let path = self.client_cert.as_deref().unwrap_or(Path::new(""));
        let (error, cert) = (error.to_string(), path.display());
        if error.contains("KeyMismatch") {
            let key = self.client_key.as_deref().unwrap_or(path).display();
            return BadTls(format!(
                "the key in {key} does not belong to the client certificate in {cert}: give the key \
                 that it was made with"
            ));
        }
        BadTls(format!("the client certificate {cert} cannot be used: {error}"))
    }

    /// The client's certificates, its key, and both as PEM.
    #[allow(clippy::type_complexity)]
    fn identity(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, Vec<u8>)>, BadTls>
    {
        let Some(cert) = &self.client_cert else {
            return match &self.client_key {
                None => Ok(None),
                Some(_) => {
                    let what =
                        "a client key was given without its certificate: give --client-cert too";
                    Err(BadTls(what.to_owned()))
                }
            };
        };
        let mut pem = read(cert)?;
        let chain = certificates(cert, &pem)?;
        let key_path = self.client_key.as_ref().unwrap_or(cert);
        let key_pem = read(key_path)?;
        if contains(&key_pem, b"ENCRYPTED") {
            return Err(BadTls(format!(
                "the key in {} is encrypted: decrypt it first, as with `openssl pkey`, into a file that \
                 only you can read",
                key_path.display()
            )));
        }
        let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| {
            BadTls(match error {
                pem::Error::NoItemsFound if self.client_key.is_none() => format!(
                    "{} holds no private key: give the file of the key with --client-key",
                    cert.display()
                ),
                error => format!("no private key can be read in {}: {error}", key_path.display()),
            })
        })?;
        let provider = aws_lc_rs::default_provider();
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider)
            .map_err(|error| self.bad_identity(&error))?;
        if self.client_key.is_some() {
            pem.extend_from_slice(b"\n");
            pem.extend_from_slice(&key_pem);
        }
        Ok(Some((chain, key, pem)))
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn read(path: &Path) -> Result<Vec<u8>, BadTls> {
    std::fs::read(path)
        .map_err(|error| BadTls(format!("{} cannot be read: {error}", path.display())))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadTls> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(BadTls(format!(
            "{} holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----",
            path.display()
        ))),
        Ok(found) => Ok(found),
        Err(error) => {
            Err(BadTls(format!("no certificate can be read in {}: {error}", path.display())))
        }
    }
}

/// Trusts the given certificates, and what they have signed. A self-signed certificate of `openssl req
/// -x509` says that it is an authority, which the usual verifier refuses for a server.
#[derive(Debug)]
struct Pinned {
    given: Vec<CertificateDer<'static>>,
    inner: Arc<WebPkiServerVerifier>,
}

impl Pinned {
    fn of(path: &Path) -> Result<Self, BadTls> {
        let given = certificates(path, &read(path)?)?;
        let mut roots = RootCertStore::empty();
        let bad = |error: &dyn std::fmt::Display| {
            BadTls(format!("a certificate in {} cannot be used: {error}", path.display()))
        };
        for certificate in &given {
            roots.add(certificate.clone()).map_err(|error| bad(&error))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(Self { given, inner: inner.build().map_err(|error| bad(&error))? })
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (inner, given) = (&self.inner, &self.given);
        let verified =
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let Err(rustls::Error::InvalidCertificate(error)) = &verified else { return verified };
        let is_pinned = given.iter().any(|one| one.as_ref() == end_entity.as_ref());
        // The verifier checks the dates before the purpose.
        let is_in_time = matches!(
            error,
            CertificateError::Other(_)
                | CertificateError::UnknownIssuer
                | CertificateError::InvalidPurpose
                | CertificateError::InvalidPurposeContext { .. }
                | CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. }
        );
        if !is_pinned || !is_in_time {
            return verified;
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        match rustls::client::verify_server_name(&parsed, server_name) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            // It names no server, so only the certificate itself can be recognised.
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                presented,
                ..
            })) if presented.is_empty() => Ok(ServerCertVerified::assertion()),
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Why an encrypted connection is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The server does not speak TLS.
    NotTls,
    /// The server's certificate is not accepted. Says what is wrong with it, and what to do.
    Certificate(String),
    /// The server does not accept the client. Says what to do.
    Client(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotTls => "the server does not speak TLS there: use a URL with http://",
            Self::Certificate(words) | Self::Client(words) => words,
        })
    }
}

/// Why an encrypted connection is not made; `None` for an error of another kind.
pub(super) fn explained(error: &(dyn std::error::Error + 'static)) -> Option<Trouble> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return words(error);
        }
        // `source` of an I/O error skips the error that it holds.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

fn words(error: &rustls::Error) -> Option<Trouble> {
    use CertificateError as Bad;
    let date = |time: &UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
        time.strftime("%Y-%m-%d %H:%M UTC").to_string()
    };
    let words = match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer => {
                "the server's certificate is signed by an unknown issuer: if you trust it, give the \
                 issuer's certificate, or the server's own, with --ca-file"
                    .to_owned()
            }
            Bad::ExpiredContext { not_after, time } => format!(
                "the server's certificate expired on {}: renew it, or correct the clock of this \
                 machine, which says {}",
                date(not_after),
                date(time)
            ),
            Bad::Expired => {
                "the server's certificate has expired: renew it, or correct the clock of this machine"
                    .to_owned()
            },
            Bad::NotValidYetContext { not_before, time } => format!(
                "the server's certificate is not valid before {}: correct the clock of this machine, \
                 which says {}, or of the machine that made the certificate",
                date(not_before),
                date(time)
            ),
            Bad::NotValidYet => {
                "the server's certificate is not valid yet: check the clock of this machine".into()
            }
            Bad::NotValidForNameContext { expected, presented } => {
                let name = expected.to_str();
                match presented.is_empty() {
                    true => format!(
                        "the server's certificate names no server, so it is not valid for `{name}`: if \
                         you trust it, give the certificate itself with --ca-file"
                    ),
                    false => format!(
                        "the server's certificate is not valid for `{name}` but for {}: use a URL with \
                         one of these names",
                        presented
                            .iter()
                            .map(|name| plain_name(name))
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                }
            }
            Bad::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                "the server's certificate is self-signed: if you trust it, give it with --ca-file"
                    .to_owned()
            }
            other => format!(
                "the server's certificate is not accepted ({other}): if you trust it, give it with \
                 --ca-file"
            ),
        },
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => {
            return Some(Trouble::Client(format!(
                "the server wants a client certificate, or does not accept the one it got ({error}): \
                 give one that it knows with --client-cert and --client-key"
            )));
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            return Some(Trouble::NotTls);
        }
        _ => return None,
    };
    Some(Trouble::Certificate(words))
}

/// A certificate in words: its subject, its issuer and its last day.
pub(super) fn described(certificate: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?.tbs_certificate;
    let named = |name: String| if name.is_empty() { "nobody".to_owned() } else { name };
    let subject = named(certificate.subject.to_string());
    let issuer = named(certificate.issuer.to_string());
    let end = certificate.validity.not_after.to_date_time();
    Some(error::bounded(&format!(
        "issued to {subject} by {issuer}, valid until {}-{:02}-{:02}",
        end.year(),
        end.month(),
        end.day()
    )))
}

/// A name in a certificate, without the type that the library writes around it:
/// `DnsName("other.example")`.
fn plain_name(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_certificate_are_said_as_people_write_them() {
        assert_eq!(plain_name("DnsName(\"other.example\")"), "other.example");
        assert_eq!(plain_name("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(plain_name("other.example"), "other.example");
    }

    #[test]
    fn a_certificate_that_is_not_accepted_is_explained() {
        use CertificateError as Bad;
        let time = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let (now, day) = (time(1_700_000_000), time(86_400));
        let name = ServerName::try_from("couch.example").unwrap();
        let names = |presented: &[&str]| Bad::NotValidForNameContext {
            expected: name.clone(),
            presented: presented.iter().map(|name| (*name).to_owned()).collect(),
        };
        for (bad, said) in [
            (Bad::UnknownIssuer, "--ca-file"),
            (Bad::BadSignature, "--ca-file"),
            (Bad::ExpiredContext { time: now, not_after: day }, "expired on 1970-01-02 00:00 UTC"),
            (Bad::NotValidYetContext { time: day, not_before: now }, "before 2023-11-14 22:13 UTC"),
            (names(&["a.example", "b.example"]), "a.example, b.example"),
            (names(&[]), "names no server"),
        ] {
            // As it comes: within an error of input and output.
            let error = rustls::Error::InvalidCertificate(bad);
            let error = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
            let words = explained(&error).unwrap().to_string();
            assert!(words.contains(said), "{words}");
        }
        assert_eq!(explained(&std::io::Error::other("a lost connection")), None);
        assert_eq!(explained(&rustls::Error::HandshakeNotComplete), None);
    }
}
