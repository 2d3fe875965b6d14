//! The mirror that a request is about.

use std::convert::Infallible;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;

use super::problem::ApiProblem;
use crate::document::CollectionName;
use crate::runner::{CollectionStatus, Watcher};

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct ApiState {
    watcher: Watcher,
}

impl ApiState {
    /// The state of an interface of one mirror.
    pub fn of_one(watcher: Watcher) -> Self {
        Self { watcher }
    }
}

/// The mirror that a request is about.
#[derive(Debug)]
pub struct Chosen {
    watcher: Watcher,
}

impl Chosen {
    /// The mirror at work.
    pub fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    /// The status of a collection.
    pub fn collection(&self, name: &CollectionName) -> Result<CollectionStatus, ApiProblem> {
        self.watcher.collection(name).ok_or_else(|| ApiProblem::no_collection(name))
    }
}

impl FromRequestParts<ApiState> for Chosen {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, state: &ApiState) -> Result<Self, Infallible> {
        Ok(Self { watcher: state.watcher.clone() })
    }
}

impl FromRef<ApiState> for Watcher {
    fn from_ref(state: &ApiState) -> Self {
        state.watcher.clone()
    }
}
