//! `GET /healthz` and `GET /readyz`: whether the process works, and whether its mirrors have caught up.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::chosen::ApiState;
use super::json;
use super::metrics::Observed;

/// A batch that takes longer hangs on the disk.
const STUCK: Duration = Duration::from_secs(600);

/// The answer.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Health {
    /// `ok` or `unavailable`.
    status: &'static str,
    /// The mirrors that are not as they should be.
    mirrors: Vec<Unwell>,
}

/// A mirror that is not as it should be.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Unwell {
    mirror: String,
    reason: String,
}

/// Says whether the process works on its mirrors
#[utoipa::path(
    get, path = "/healthz", operation_id = "health",
    responses(
        (status = 200, description = "The process works on its mirrors", body = Health),
        (status = 503, description = "A batch hangs on the disk", body = Health)
    )
)]
pub async fn health(State(state): State<ApiState>) -> Response {
    answer(stuck(&Observed::all(&state)))
}

/// Says whether all mirrors have caught up
#[utoipa::path(
    get, path = "/readyz", operation_id = "readiness",
    responses(
        (status = 200, description = "Every mirror has caught up", body = Health),
        (status = 503, description = "A mirror has not caught up", body = Health)
    )
)]
pub async fn readiness(State(state): State<ApiState>) -> Response {
    answer(unready(&Observed::all(&state)))
}

/// The mirrors whose session does not get on.
fn stuck(mirrors: &[Observed]) -> Vec<Unwell> {
    let reason = |mirror: &Observed| {
        let busy = mirror.watcher.as_ref()?.longest_busy()?;
        let seconds = busy.as_secs();
        (busy > STUCK).then(|| format!("a batch has been on its way to the disk for {seconds} s"))
    };
    unwell(mirrors, reason)
}

/// The mirrors that have not caught up.
fn unready(mirrors: &[Observed]) -> Vec<Unwell> {
    let reason = |mirror: &Observed| {
        let reason = match &mirror.watcher {
            _ if mirror.is_parked => "it has ended with an error that somebody has to mend",
            _ if mirror.has_failed => "it has ended with an error, and is started again",
            None if mirror.is_starting => "it is being started",
            // It waits for its time: nothing was left to be read when its last run ended.
            None => return None,
            Some(watcher) if watcher.is_ready() => return None,
            Some(_) => "it has not caught up since it was started",
        };
        Some(reason.to_owned())
    };
    unwell(mirrors, reason)
}

fn unwell(mirrors: &[Observed], reason: impl Fn(&Observed) -> Option<String>) -> Vec<Unwell> {
    let unwell =
        |mirror: &Observed| Some(Unwell { reason: reason(mirror)?, mirror: mirror.name.clone() });
    mirrors.iter().filter_map(unwell).collect()
}

/// 200 if no mirror is unwell, else 503.
fn answer(mirrors: Vec<Unwell>) -> Response {
    let (code, status) = match mirrors.is_empty() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    (code, json(&Health { status, mirrors })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resting(has_failed: bool, is_parked: bool) -> Observed {
        Observed {
            name: "books".to_owned(),
            watcher: None,
            has_failed,
            is_parked,
            is_starting: false,
            was_incomplete: false,
        }
    }

    #[test]
    fn a_mirror_that_waits_for_its_time_is_ready_and_one_that_failed_is_not() {
        assert!(unready(&[resting(false, false)]).is_empty());
        let starting = Observed { is_starting: true, ..resting(false, false) };
        assert_eq!(unready(&[starting]).len(), 1);
        let unready = unready(&[resting(true, false), resting(false, true)]);
        let reasons: Vec<_> = unready.iter().map(|one| one.reason.as_str()).collect();
        assert!(reasons[0].contains("started again") && reasons[1].contains("mend"));
        assert!(stuck(&[resting(true, true)]).is_empty());
        assert_eq!(answer(unready).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer(Vec::new()).status(), StatusCode::OK);
    }
}
