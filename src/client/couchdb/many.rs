//! Requests about many databases at once.

use std::collections::HashMap;
use std::time::Duration;

use super::request::Request;
use super::{Body, Client, DatabaseInfo, Error};
use crate::document::CollectionName;

/// What a server reports about one of many databases.
#[derive(Debug)]
pub enum Reported {
    /// This.
    Info(DatabaseInfo),
    /// It does not exist.
    Missing,
    /// Another error, or nothing.
    Unknown,
}

/// One database in the answer of `_dbs_info`.
#[derive(serde::Deserialize)]
struct Entry {
    key: String,
    #[serde(default)]
    info: Option<DatabaseInfo>,
    #[serde(default)]
    error: Option<String>,
}

impl Entry {
    fn reported(self) -> Reported {
        match (self.info, self.error.as_deref()) {
            (Some(info), _) => Reported::Info(info),
            (None, Some("not_found")) => Reported::Missing,
            (None, _) => Reported::Unknown,
        }
    }
}

impl Client {
    /// What databases report about themselves, in this order.
    pub async fn infos(&self, names: &[CollectionName]) -> Result<Vec<Reported>, Error> {
        let keys: Vec<&str> = names.iter().map(CollectionName::as_str).collect();
        let wanted = serde_json::json!({ "keys": keys }).to_string().into_bytes();
        let request = Request::post("/_dbs_info".to_owned(), wanted);
        let entries: Vec<Entry> = self.read_json(request).await?;
        let mut infos: HashMap<String, Entry> =
            entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        let reported = |name: &CollectionName| {
            infos.remove(name.as_str()).map_or(Reported::Unknown, Entry::reported)
        };
        Ok(names.iter().map(reported).collect())
    }

    /// `GET /_db_updates`: the names of databases that change from now on.
    pub async fn updates(&self, heartbeat: Duration) -> Result<Body, Error> {
        let mut request = Request::get("/_db_updates".to_owned());
        request.query = format!("feed=continuous&since=now&heartbeat={}", heartbeat.as_millis());
        request.patience = Some(heartbeat * 3);
        request.beats = true;
        self.send(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_database_that_is_not_found_is_missing() {
        let reported = |text| serde_json::from_str::<Entry>(text).unwrap().reported();
        assert!(matches!(reported(r#"{"key":"a","error":"not_found"}"#), Reported::Missing));
        assert!(matches!(reported(r#"{"key":"a","error":"timeout"}"#), Reported::Unknown));
        assert!(matches!(reported(r#"{"key":"a","info":null}"#), Reported::Unknown));
    }
}
