//! `POST /verify` and `/repair`, each for all collections or with `?collection=NAME`: begin a job. `GET
//! /jobs`, `GET /jobs/{job}` and `POST /jobs/{job}/cancel`: the jobs of the session.

use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::chosen::{ApiState, Chosen};
use super::json;
use super::problem::{ApiProblem, ApiProblemKind};
use crate::document::CollectionName;
use crate::job::{JobKind, JobReport};
use crate::runner::ErrandError;

/// The parameters of a request that begins a job.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct JobQuery {
    /// The name of a collection; without it, the job is about all.
    #[param(value_type = Option<String>)]
    collection: Option<CollectionName>,
    /// The most bytes that are read in a second; without it, there is no limit.
    #[param(minimum = 1)]
    rate: Option<u64>,
}

/// The job that a path names.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct InJob {
    /// The id of the job.
    job: u64,
}

/// The jobs of a session.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// The last 20, the newest first.
    pub jobs: Vec<JobReport>,
}

/// The routes of jobs.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(verify))
        .routes(routes!(repair))
        .routes(routes!(list))
        .routes(routes!(read))
        .routes(routes!(cancel))
}

/// Begins to read every stored byte
#[utoipa::path(
    post, path = "/verify", operation_id = "verify", params(JobQuery),
    responses((status = 202, description = "The job that has begun", body = JobReport))
)]
async fn verify(chosen: Chosen, Query(wanted): Query<JobQuery>) -> Result<Response, ApiProblem> {
    begin(JobKind::Verify, &chosen, wanted).await
}

/// Begins to read every stored byte, and fetches what is damaged again
#[utoipa::path(
    post, path = "/repair", operation_id = "repair", params(JobQuery),
    responses((status = 202, description = "The job that has begun", body = JobReport))
)]
async fn repair(chosen: Chosen, Query(wanted): Query<JobQuery>) -> Result<Response, ApiProblem> {
    begin(JobKind::Repair, &chosen, wanted).await
}

/// Lists the last jobs
#[utoipa::path(
    get, path = "/jobs", operation_id = "jobs",
    responses((status = 200, description = "The jobs, the newest first", body = JobList))
)]
async fn list(chosen: Chosen) -> Response {
    json(&JobList { jobs: chosen.watcher().jobs() })
}

/// Reads a job
#[utoipa::path(
    get, path = "/jobs/{job}", operation_id = "job", params(InJob),
    responses((status = 200, description = "The job", body = JobReport))
)]
async fn read(chosen: Chosen, Path(InJob { job }): Path<InJob>) -> Result<Response, ApiProblem> {
    chosen.watcher().job(job).map(|job| json(&job)).ok_or_else(|| unknown(job))
}

/// Tells a job to end between two documents
#[utoipa::path(
    post, path = "/jobs/{job}/cancel", operation_id = "cancel_job", params(InJob),
    responses((status = 200, description = "The job", body = JobReport))
)]
async fn cancel(chosen: Chosen, Path(InJob { job }): Path<InJob>) -> Result<Response, ApiProblem> {
    chosen.watcher().cancel_job(job).map(|job| json(&job)).ok_or_else(|| unknown(job))
}

async fn begin(
    kind: JobKind,
    chosen: &Chosen,
    JobQuery { collection, rate }: JobQuery,
) -> Result<Response, ApiProblem> {
    if rate == Some(0) {
        let detail = "`rate` is 0: give a number of bytes from 1, or leave it out";
        return Err(ApiProblem::new(ApiProblemKind::BadRequest, detail));
    }
    match chosen.watcher().begin_job(kind, collection.clone(), rate).await {
        Ok(job) => {
            // It counts from the path of the request, wherever the routes are.
            let location = format!("jobs/{}", job.id);
            Ok((StatusCode::ACCEPTED, [(LOCATION, location)], json(&job)).into_response())
        }
        Err(ErrandError::NoCollection) => {
            Err(ApiProblem::no_collection(&collection.unwrap_or_else(|| "".into())))
        }
        Err(error @ ErrandError::Busy(_)) => {
            Err(ApiProblem::new(ApiProblemKind::Busy, error.to_string()))
        }
        Err(error @ ErrandError::Ending) => {
            Err(ApiProblem::new(ApiProblemKind::Unavailable, error.to_string()))
        }
    }
}

fn unknown(job: u64) -> ApiProblem {
    let detail = format!(
        "there is no job {job}, or it is not remembered any more: `GET …/jobs` lists the jobs of this \
         session"
    );
    ApiProblem::new(ApiProblemKind::NoJob, detail)
}
