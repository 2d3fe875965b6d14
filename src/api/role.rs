//! What somebody may ask of the agent, and what a request needs.

use std::fmt;
use std::str::FromStr;

use axum::http::Method;
use serde::{Deserialize, Serialize};

/// What somebody may ask. Each role may ask what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything that changes nothing.
    Read,
    /// Orders that can be taken back.
    Operate,
    /// Everything, also what deletes or replaces documents of a mirror.
    Admin,
}

/// What can be asked without a role, for those who watch whether the agent is well.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// The last parts of the paths of orders that only an admin gives.
const OF_ADMIN: [&str; 2] = ["release", "repair"];

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Read, Self::Operate, Self::Admin];

    /// The role that a request needs; `path` is that of the route, in which names are not filled in.
    pub fn needed(method: &Method, path: &str) -> Option<Self> {
        let is_order = *method != Method::GET && *method != Method::HEAD;
        let last = path.rsplit('/').next().unwrap_or_default();
        match is_order {
            _ if OPEN.contains(&path) => None,
            false => Some(Self::Read),
            true if OF_ADMIN.contains(&last) => Some(Self::Admin),
            true => Some(Self::Operate),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        })
    }
}

/// A text that is not a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is `read`, `operate` or `admin`")]
pub struct BadRole;

impl FromStr for Role {
    type Err = BadRole;

    fn from_str(text: &str) -> Result<Self, BadRole> {
        Self::ALL.into_iter().find(|role| role.to_string() == text).ok_or(BadRole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_nothing_is_read_and_only_an_admin_releases_and_repairs() {
        let needed = |method: Method, path| Role::needed(&method, path);
        assert_eq!(needed(Method::GET, "/healthz"), None);
        assert_eq!(needed(Method::GET, "/metrics"), Some(Role::Read));
        assert_eq!(needed(Method::HEAD, "/v1/mirrors"), Some(Role::Read));
        assert_eq!(needed(Method::GET, "/v1/mirrors/{name}/release"), Some(Role::Read));
        assert_eq!(needed(Method::POST, "/v1/mirrors/{name}/pause"), Some(Role::Operate));
        assert_eq!(needed(Method::DELETE, "/v1/mirrors/{name}/cursors/{x}"), Some(Role::Operate));
        for path in ["/release", "/v1/mirrors/{name}/collections/{collection}/release", "/repair"] {
            assert_eq!(needed(Method::POST, path), Some(Role::Admin), "{path}");
        }
        assert!(Role::Read < Role::Operate && Role::Operate < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!("root".parse::<Role>(), Err(BadRole));
    }
}
