//! Creates the database and sets its security object before the first document is written, so that
//! it is never more open than the mirror's, however the restore ends.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::blocking::blocking;
use super::read;
use super::target::{Cause, Standing, Target, TargetError};
use super::{OnExisting, RestoreError, RestoreFailure};
use crate::archive::StoredCollection;
use crate::document::{CollectionName, Properties, doubtful_name};

/// The database of users. CouchDB protects its documents, and does not allow changing its security
/// object.
const USERS: &str = "_users";

/// A security object that admits only admins.
const CLOSED: &[u8] = br#"{"admins":{"roles":["_admin"]},"members":{"roles":["_admin"]}}"#;

/// The message for a security object that no run has mirrored.
const NEVER_MIRRORED: &str = "the mirror holds no security object of it: only admins may read the new \
                              database; set the object by hand, or run `plainfold mirror` first";

/// The steps before the first document.
pub(super) struct Gate {
    name: CollectionName,
    standing: Standing,
    properties: Properties,
    /// The security object to write, if any.
    security: Option<Bytes>,
    /// Why the mirror's security object cannot be restored, if known.
    pub failure: Option<RestoreFailure>,
    /// Whether the target's security object differs from the mirror's, and stays because existing
    /// things are skipped.
    pub keeps_theirs: bool,
    /// The path of the mirror's security object, for messages.
    path: String,
}

/// The result of these steps.
pub(super) struct Opened {
    /// Whether documents may be written.
    pub open: bool,
    /// The failures.
    pub failures: Vec<RestoreFailure>,
}

impl Gate {
    /// Compares the security objects. Writes nothing.
    pub async fn look<T: Target>(
        target: &T,
        collection: &Arc<dyn StoredCollection>,
        name: &CollectionName,
        standing: Standing,
        on_existing: OnExisting,
        accept_unchecked: bool,
    ) -> Result<Self, RestoreError> {
        let tree = Arc::clone(collection);
        let stored = blocking(move || read::security(&*tree, accept_unchecked)).await??;
        let properties = collection.properties().unwrap_or_default();
        let mut gate = Self {
            name: name.clone(),
            standing,
            properties,
            security: None,
            failure: None,
            keeps_theirs: false,
            path: collection.security_path(),
        };
        let ours = match stored {
            None => {
                // Every database of a CouchDB has a security object, so a run failed to read it.
                if standing == Standing::Absent
                    && collection.properties().is_some()
                    && target.takes_branches()
                {
                    gate.security = Some(CLOSED.into());
                    gate.failure = Some(RestoreFailure {
                        path: collection.security_path(),
                        reason: NEVER_MIRRORED.to_owned(),
                    });
                }
                return Ok(gate);
            }
            Some(Ok(ours)) => ours,
            Some(Err(failure)) => {
                gate.failure = Some(failure);
                // The damaged object does not show who had access.
                gate.security = (standing == Standing::Absent).then(|| CLOSED.into());
                return Ok(gate);
            }
        };
        if standing == Standing::Absent {
            gate.security = Some(ours);
            return Ok(gate);
        }
        let Some(theirs) = target.security(name).await? else {
            if !is_default(&ours) {
                let reason = "the target has no security objects: restrict access to the \
                              collection there by other means"
                    .to_owned();
                gate.failure = Some(RestoreFailure { path: collection.security_path(), reason });
            }
            return Ok(gate);
        };
        if is_same(&ours, &theirs) {
            return Ok(gate);
        }
        // It is as it was created, perhaps by a restore that was interrupted right then.
        let is_untouched = standing == Standing::Empty && is_default(&theirs);
        match on_existing {
            OnExisting::Refuse if !is_untouched => {
                return Err(RestoreError::OtherSecurity { target: target.place(name) });
            }
            OnExisting::Refuse | OnExisting::Overwrite => gate.security = Some(ours),
            OnExisting::Skip => gate.keeps_theirs = true,
            OnExisting::Undelete => {}
        }
        Ok(gate)
    }

    /// Whether the security object of the mirror is written.
    pub fn secures(&self) -> bool {
        self.security.is_some() && self.failure.is_none()
    }

    /// Creates the database and writes its security object, if needed.
    pub async fn open<T: Target>(&self, target: &T) -> Result<Opened, TargetError> {
        let mut opened = Opened { open: true, failures: Vec::new() };
        let failure = |path: &str, reason| RestoreFailure { path: path.to_owned(), reason };
        let folder = self.path.rsplit_once('/').map_or(&*self.path, |(folder, _)| folder);
        if self.standing == Standing::Absent {
            match target.create(&self.name, self.properties).await {
                Ok(not_taken) => {
                    opened.failures.extend(not_taken.into_iter().map(|why| failure(folder, why)));
                }
                // If the target rejects this name, the other collections are still restored.
                Err(TargetError::Permanent { cause: Cause::Rejected, what }) => {
                    opened.open = false;
                    let reason = match doubtful_name(self.name.as_str()) {
                        Some(doubt) => format!("{what} ({doubt})"),
                        None => what,
                    };
                    opened.failures.push(failure(folder, reason));
                    return Ok(opened);
                }
                Err(error) => return Err(error),
            }
        }
        let Some(security) = &self.security else { return Ok(opened) };
        let error = match target.secure(&self.name, security.clone()).await {
            Ok(()) => return Ok(opened),
            Err(TargetError::Permanent { what, .. }) => what,
            Err(error) => return Err(error),
        };
        // The target may have set exactly this object by default.
        let theirs = target.security(&self.name).await;
        if matches!(&theirs, Ok(Some(theirs)) if is_same(security, theirs)) {
            return Ok(opened);
        }
        opened.open = self.name.as_str() == USERS;
        let what = match opened.open {
            true => "its security object differs from the mirror's and stays as it is",
            false => {
                "its security object cannot be written, so no document was written: restore as an \
                 admin, or set the object by hand and give --on-existing skip"
            }
        };
        opened.failures.push(failure(&self.path, format!("{what} ({error})")));
        Ok(opened)
    }
}

/// Whether two security objects mean the same. An unreadable one equals nothing.
fn is_same(left: &[u8], right: &[u8]) -> bool {
    let read = |text: &[u8]| serde_json::from_slice::<Value>(text).ok();
    read(left).is_some_and(|left| read(right) == Some(left))
}

/// Whether this is the default of a new database: empty, or lists that contain only the role of
/// admins.
fn is_default(security: &[u8]) -> bool {
    let Ok(Value::Object(members)) = serde_json::from_slice(security) else { return false };
    members.into_iter().all(|(key, value)| {
        let lists = value.as_object().filter(|_| matches!(&*key, "admins" | "members"));
        lists.is_some_and(|lists| {
            lists.iter().all(|(key, list)| {
                let names = list.as_array().map(Vec::as_slice);
                match (&**key, names) {
                    (_, Some([])) => true,
                    ("roles", Some([role])) => role == "_admin",
                    _ => false,
                }
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_objects_are_compared_by_what_they_say() {
        assert!(is_same(b"{\"a\":[1],\"b\":{}}\n", b"{ \"b\" : {}, \"a\":[1]}"));
        assert!(!is_same(b"{}", b"{\"admins\":{}}"));
        assert!(!is_same(b"no", b"no"));
    }

    #[test]
    fn what_servers_give_to_new_databases_names_nobody() {
        for default in [
            "{}",
            r#"{"admins":{"names":[],"roles":[]},"members":{"names":[],"roles":[]}}"#,
            r#"{"members":{"roles":["_admin"]},"admins":{"roles":["_admin"]}}"#,
        ] {
            assert!(is_default(default.as_bytes()), "{default}");
        }
        for set in [
            r#"{"members":{"roles":["staff"]}}"#,
            r#"{"admins":{"names":["me"]}}"#,
            r#"{"members":{"names":["_admin"]}}"#,
            r#"{"cloudant":{}}"#,
            "no",
        ] {
            assert!(!is_default(set.as_bytes()), "{set}");
        }
    }
}
