//! The mirror that a request is about.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use super::problem::ApiProblem;
use crate::agent::{MirrorHandle, Roster};
use crate::document::CollectionName;
use crate::runner::{CollectionStatus, Watcher};

/// What the handlers share.
#[derive(Clone, Debug)]
pub enum ApiState {
    /// The mirror of one session.
    One(Watcher),
    /// The mirrors of an agent. The path of a request names one of them.
    All(Roster),
}

/// The mirror that a request is about, which is at work.
#[derive(Debug)]
pub struct Chosen {
    watcher: Watcher,
    outlives: bool,
}

impl Chosen {
    /// The mirror at work.
    pub fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    /// Whether the process outlives the session, and may open the mirror again.
    pub fn outlives(&self) -> bool {
        self.outlives
    }

    /// The status of a collection.
    pub fn collection(&self, name: &CollectionName) -> Result<CollectionStatus, ApiProblem> {
        self.watcher.collection(name).ok_or_else(|| ApiProblem::no_collection(name))
    }
}

impl FromRequestParts<ApiState> for Chosen {
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiProblem> {
        match state {
            ApiState::One(watcher) => Ok(Self { watcher: watcher.clone(), outlives: false }),
            ApiState::All(roster) => {
                let Named(mirror) = Named::from_request_parts(parts, roster).await?;
                let watcher = mirror.watcher().ok_or_else(|| ApiProblem::no_session(&mirror))?;
                Ok(Self { watcher, outlives: true })
            }
        }
    }
}

/// The mirror of an agent that the `name` of the path names, whether it is at work or not.
#[derive(Debug)]
pub struct Named(pub MirrorHandle);

impl FromRequestParts<Roster> for Named {
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, roster: &Roster) -> Result<Self, ApiProblem> {
        let named = RawPathParams::from_request_parts(parts, roster).await;
        // What is not text is the name of no mirror.
        let named = named.ok().and_then(|parts| {
            parts.iter().find(|(part, _)| *part == "name").map(|(_, name)| name.to_owned())
        });
        let named = named.unwrap_or_default();
        let mirror = named.parse().ok().and_then(|name| roster.get(&name));
        mirror.map(Self).ok_or_else(|| ApiProblem::no_mirror(&named))
    }
}
