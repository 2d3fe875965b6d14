//! Connections that nobody waits for are not made.
//!
//! A request that begins to connect may get a connection that another one has left. The HTTP library
//! finishes the first one too, in a task of its own, and keeps it for later. So more
//! connections would be open than there are requests.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use reqwest::{RequestBuilder, Response};
use tower_layer::Layer;
use tower_service::Service;

tokio::task_local! {
    /// Set in a task while it sends a request.
    static SENDING: ();
}

/// Sends a request, which waits for its connection.
pub(super) async fn send(request: RequestBuilder) -> reqwest::Result<Response> {
    SENDING.scope((), request.send()).await
}

/// Lets connections end that are not waited for by [`send`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited;

impl<S> Layer<S> for Waited {
    type Service = Connector<S>;

    fn layer(&self, inner: S) -> Connector<S> {
        Connector(inner)
    }
}

/// A connector.
#[derive(Clone, Debug)]
pub(super) struct Connector<S>(S);

type BoxError = Box<dyn Error + Send + Sync>;

impl<S, R> Service<R> for Connector<S>
where
    S: Service<R, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, to: R) -> Self::Future {
        let mut connecting = Box::pin(self.0.call(to));
        Box::pin(poll_fn(move |context| match SENDING.try_with(|()| ()) {
            Ok(()) => connecting.as_mut().poll(context),
            Err(_) => Poll::Ready(Err("the request has got another connection".into())),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connects to nothing, without end.
    #[derive(Clone, Debug)]
    struct Never;

    impl Service<()> for Never {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Pending<Result<(), BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            std::future::pending()
        }
    }

    #[tokio::test]
    async fn a_connection_ends_once_its_request_does_not_wait_for_it() {
        let mut connecting = Waited.layer(Never).call(());
        let sending = SENDING.scope((), futures_util::future::poll_immediate(&mut connecting));
        assert!(sending.await.is_none(), "it is waited for");
        assert!(tokio::spawn(connecting).await.unwrap().is_err());
    }
}
