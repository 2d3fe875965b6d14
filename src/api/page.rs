//! Lists that are answered in pages, and the parameters of the paths.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::problem::{ApiProblem, ApiProblemKind};
use crate::document::CollectionName;
use crate::runner::FailureStatus;

/// The number of entries of a page, if no other is asked for.
const USUAL: usize = 100;

/// The most entries of a page.
const MOST: usize = 1000;

/// The parameters of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The `next` of the page before; without it, the list begins.
    after: Option<String>,
    /// The most entries of the page: 1 to 1000. The default is 100.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// The collection that a path names.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct InCollection {
    /// The name of the collection, percent-encoded: `books%2F2024`.
    #[param(value_type = String)]
    pub collection: CollectionName,
}

impl PageQuery {
    /// The number of entries that are wanted.
    pub fn limit(&self) -> Result<usize, ApiProblem> {
        match self.limit {
            None => Ok(USUAL),
            Some(limit @ 1..=MOST) => Ok(limit),
            Some(limit) => Err(ApiProblem::new(
                ApiProblemKind::BadRequest,
                format!("`limit` is {limit}: give a number from 1 to {MOST}"),
            )),
        }
    }

    /// The `next` of the page before.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }
}

/// The entries of a page among `found`, which may hold one more, and the `next` of the page, which
/// is made of its last entry.
pub fn page<T>(
    mut found: Vec<T>,
    limit: usize,
    key: impl Fn(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_more).map(key);
    (found, next)
}

/// The place of a document that failed among the others of its collection, which are sorted by the
/// time of their first failure.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FailurePlace(Timestamp, usize, String, Option<String>);

impl FailurePlace {
    /// The place of this one.
    pub fn of(failure: &FailureStatus) -> Self {
        let document = failure.document.as_ref().map(|id| id.as_str().to_owned());
        // As failures are sorted: the number at the end of a place has no leading zeros.
        Self(failure.since, failure.place.len(), failure.place.clone(), document)
    }

    /// The place as a text that only this program reads.
    pub fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The place that such a text names.
    pub fn parse(token: &str) -> Result<Self, ApiProblem> {
        let read = URL_SAFE_NO_PAD.decode(token).ok();
        read.and_then(|text| serde_json::from_slice(&text).ok()).ok_or_else(|| {
            let detail = "`after` is not the `next` of a page of failures: leave it out to begin";
            ApiProblem::new(ApiProblemKind::BadRequest, detail)
        })
    }
}
