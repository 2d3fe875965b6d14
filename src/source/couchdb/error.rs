//! What a failed request means for a source.

use crate::client::couchdb::{Error, Kind};
use crate::source::SourceError;

/// What happened, without the request, if the connection or a gateway failed: that is not the matter of
/// one database.
fn cause_at_server(error: &Error) -> Option<String> {
    if !matches!(error.status(), None | Some(502..=504)) {
        return None;
    }
    let text = error.to_string();
    let (_, request) = text.split_once(" http")?;
    let (_, cause) = request.split_once(": ")?;
    Some(cause.to_owned())
}

impl From<Error> for SourceError {
    fn from(error: Error) -> Self {
        let what = error.to_string();
        match error.kind() {
            Kind::Transient { retry_after } => {
                Self::Transient { cause: cause_at_server(&error), what, retry_after }
            }
            Kind::Expired => Self::Expired {
                reason: format!("the server no longer understands the position ({what})"),
            },
            Kind::Refused => Self::Refused { what },
            Kind::Missing => Self::Missing { what },
            Kind::TooLarge | Kind::Permanent => Self::Permanent { what },
        }
    }
}
