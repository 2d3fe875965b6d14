//! Requests about many databases at once.
//!
//! It must not know what their answers are for.

use std::collections::HashMap;
use std::time::Duration;

use super::request::Request;
use super::{Body, Client, DatabaseInfo, Error};
use crate::document::CollectionName;

impl Client {
    /// What databases report about themselves, in this order; `None` for one that does not exist.
    pub async fn infos(
        &self,
        names: &[CollectionName],
    ) -> Result<Vec<Option<DatabaseInfo>>, Error> {
        #[derive(serde::Deserialize)]
        struct Entry {
            key: String,
            #[serde(default)]
            info: Option<DatabaseInfo>,
        }
        let keys: Vec<&str> = names.iter().map(CollectionName::as_str).collect();
        let wanted = serde_json::json!({ "keys": keys }).to_string().into_bytes();
        let request = Request::post("/_dbs_info".to_owned(), wanted);
        let entries: Vec<Entry> = self.read_json(request).await?;
        let mut infos: HashMap<String, Option<DatabaseInfo>> =
            entries.into_iter().map(|entry| (entry.key, entry.info)).collect();
        Ok(names.iter().map(|name| infos.remove(name.as_str()).flatten()).collect())
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
