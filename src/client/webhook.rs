//! Addresses that a person has named, which are called, or get a document.
//!
//! Such a URL may be a secret as a whole, so no text shows more of it than the scheme and the host.

use std::fmt;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Url};

use crate::document::plain;

/// An address that can be called.
#[derive(Clone)]
pub struct Webhook {
    http: reqwest::Client,
    url: Url,
}

/// Why an address cannot be called, or was called in vain.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// It is not a URL of HTTP.
    #[error("it is not a URL that begins with http:// or https://")]
    NotAUrl,
    /// No client can be made.
    #[error("the HTTP client cannot be made: {0}")]
    Client(String),
    /// The request failed.
    #[error("{0}")]
    Failed(String),
    /// It was answered with an error.
    #[error("the answer was {0}")]
    Status(u16),
    /// It was not answered in time.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

impl Webhook {
    /// The address that a text names. Sends nothing; for `https`, it reads the certificates of this machine.
    pub fn new(text: &str) -> Result<Self, WebhookError> {
        let url = Url::parse(text.trim()).map_err(|_| WebhookError::NotAUrl)?;
        let is_encrypted = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(WebhookError::NotAUrl),
        };
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("plainfold/", env!("CARGO_PKG_VERSION")))
            // It would send the document to another place.
            .redirect(Policy::none());
        if !is_encrypted {
            // A machine without certificates, such as a bare container, needs none here.
            http = http.tls_certs_only([]);
        }
        let http =
            http.build().map_err(|error| WebhookError::Client(plain::with_causes(&error)))?;
        Ok(Self { http, url })
    }

    /// Calls it.
    pub async fn call(&self, patience: Duration) -> Result<(), WebhookError> {
        send(self.http.get(self.url.clone()), patience).await
    }

    /// Sends it a document of JSON.
    pub async fn post(&self, json: Vec<u8>, patience: Duration) -> Result<(), WebhookError> {
        let request = self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        send(request.body(json), patience).await
    }
}

async fn send(request: RequestBuilder, patience: Duration) -> Result<(), WebhookError> {
    let answer = tokio::time::timeout(patience, request.send()).await;
    match answer.map_err(|_| WebhookError::Late(patience))? {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(WebhookError::Status(answer.status().as_u16())),
        Err(error) => Err(WebhookError::Failed(plain::with_causes(&error.without_url()))),
    }
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/…", self.url.scheme(), self.url.host_str().unwrap_or_default())
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Webhook({self})")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A server that answers once, with this status, and returns what it was sent.
    async fn server(status: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let (mut text, mut piece) = (Vec::new(), [0; 1024]);
            while !text.ends_with(b"{}") && !text.starts_with(b"GET") {
                let read = client.read(&mut piece).await.unwrap();
                text.extend_from_slice(&piece[..read]);
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nlocation: /x\r\n\r\n");
            client.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(text).unwrap()
        });
        (format!("http://user:secret@{address}/token?key=secret"), asked)
    }

    #[tokio::test]
    async fn a_document_arrives_as_json_and_a_call_has_none() {
        let (url, asked) = server("204 No Content").await;
        Webhook::new(&url).unwrap().post(b"{}".to_vec(), PATIENCE).await.unwrap();
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("POST /token?key=secret "), "{asked}");
        assert!(asked.contains("content-type: application/json"), "{asked}");
        let (url, asked) = server("200 OK").await;
        Webhook::new(&url).unwrap().call(PATIENCE).await.unwrap();
        assert!(asked.await.unwrap().starts_with("GET /token"));
    }

    #[tokio::test]
    async fn an_error_and_a_redirect_are_told_without_the_address() {
        for status in ["500 Oops", "302 Found"] {
            let (url, _asked) = server(status).await;
            let hook = Webhook::new(&url).unwrap();
            let error = hook.call(PATIENCE).await.unwrap_err();
            assert_eq!(error.to_string(), format!("the answer was {}", &status[..3]));
        }
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let hook = Webhook::new(&format!("http://me:secret@{closed}/secret")).unwrap();
        let error = hook.call(PATIENCE).await.unwrap_err();
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let late = Webhook::new(&format!("http://{address}/secret")).unwrap();
        let late = late.call(Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(late, WebhookError::Late(_)));
        for text in [error.to_string(), format!("{error:?} {hook} {hook:?} {late}")] {
            assert!(!text.contains("secret"), "{text}");
        }
        assert_eq!(hook.to_string(), "http://127.0.0.1/…");
    }

    #[test]
    fn only_http_can_be_called() {
        for text in ["", "example.com/x", "ftp://example.com/", "/run/socket"] {
            assert!(matches!(Webhook::new(text), Err(WebhookError::NotAUrl)), "{text}");
        }
    }
}
