//! The first contact with a server: whether it has answered, and whether the URL has the wrong scheme.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{RequestBuilder, Response};

use super::error::Error;
use super::route::{self, Route};

/// How long a first answer over TLS may take until the port is probed. The answer itself may be slow, so
/// only what the port speaks decides.
const TLS_PATIENCE: Duration = Duration::from_secs(1);

/// What has come from a server so far.
#[derive(Debug)]
pub(super) struct Contact {
    pub route: Route,
    is_encrypted: bool,
    /// Whether it has answered in HTTP.
    heard: AtomicBool,
    /// Whether an answer was one of this protocol.
    understood: AtomicBool,
    /// Whether its port was probed.
    probed: AtomicBool,
}

impl Contact {
    /// No contact yet. `is_known` says that the server has answered in this protocol before.
    pub fn new(route: Route, is_encrypted: bool, is_known: bool) -> Self {
        let (heard, understood, probed) = (false.into(), is_known.into(), false.into());
        Self { route, is_encrypted, heard, understood, probed }
    }

    /// Notes an answer of this protocol.
    pub fn understand(&self) {
        self.understood.store(true, Ordering::Relaxed);
    }

    /// Whether an answer has been one of this protocol.
    pub fn is_understood(&self) -> bool {
        self.understood.load(Ordering::Relaxed)
    }

    /// Sends a request and returns the beginning of the answer. If the first one fails, or an unknown
    /// server takes long to answer it, this finds out whether the URL has the wrong scheme.
    pub async fn send(
        &self,
        label: &str,
        patience: Duration,
        builder: RequestBuilder,
    ) -> Result<Response, Error> {
        let route = &self.route;
        let sending = tokio::time::timeout(patience, builder.send());
        let heard = self.heard.load(Ordering::Relaxed);
        let is_known = self.is_understood();
        let sent = if heard || is_known || !self.is_encrypted {
            sending.await
        } else {
            // CouchDB waits for the rest of what it takes for a plain request.
            tokio::select! {
                sent = sending => sent,
                () = self.wait_for_tls() => return Err(route.wrong_scheme(label, is_known)),
            }
        };
        let answer =
            sent.map_err(|_| Error::transient(format!("{label}: no answer within {patience:?}")))?;
        match answer {
            Ok(answer) => {
                self.heard.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            Err(error) => {
                let may_probe = !heard && route::was_connected(&error);
                if may_probe && self.probe_once() && route.has_wrong_scheme().await {
                    return Err(route.wrong_scheme(label, is_known));
                }
                let certificate = route.refused_certificate(&error).await;
                Err(route.failed(label, error, certificate, is_known))
            }
        }
    }

    /// Resolves if the answer takes long because the port speaks plain HTTP.
    async fn wait_for_tls(&self) {
        tokio::time::sleep(TLS_PATIENCE).await;
        if !(self.probe_once() && self.route.has_wrong_scheme().await) {
            std::future::pending().await
        }
    }

    /// Whether the port may be probed now. It is probed once.
    fn probe_once(&self) -> bool {
        !self.probed.swap(true, Ordering::Relaxed)
    }
}
