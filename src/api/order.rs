//! `POST /pause`, `/resume`, `/catch-up` and `/rescan`, each for all collections or with
//! `?collection=NAME`, and the same below `/collections/{collection}`: orders to the mirror. The answer
//! has the effect for each collection, as JSON.

use axum::extract::{Path, Query};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::chosen::{ApiState, Chosen};
use super::json;
use super::page::InCollection;
use super::problem::{ApiProblem, ApiProblemKind};
use crate::document::CollectionName;
use crate::runner::{Action, Ordered};

/// The parameters of the query.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OrderQuery {
    /// The name of a collection; without it, the order is for all.
    #[param(value_type = Option<String>)]
    collection: Option<CollectionName>,
}

/// The two handlers of an order: for collections that the query names, and for the one of the path.
macro_rules! order {
    ($name:ident, $action:expr, $path:literal, $id:literal, $one:literal, $one_id:literal, $what:literal) => {
        mod $name {
            use super::*;

            #[utoipa::path(
                post, path = $path, operation_id = $id, params(OrderQuery), summary = $what,
                responses((
                    status = 200, description = "The effect for each collection", body = Vec<Ordered>
                ))
            )]
            pub async fn all(
                chosen: Chosen,
                Query(wanted): Query<OrderQuery>,
            ) -> Result<Response, ApiProblem> {
                carry_out($action, chosen, wanted.collection).await
            }

            #[utoipa::path(
                post, path = $one, operation_id = $one_id, params(InCollection), summary = $what,
                responses((
                    status = 200, description = "The effect for the collection", body = Vec<Ordered>
                ))
            )]
            pub async fn one(
                chosen: Chosen,
                Path(named): Path<InCollection>,
            ) -> Result<Response, ApiProblem> {
                carry_out($action, chosen, Some(named.collection)).await
            }
        }
    };
}

order!(
    pause,
    Action::Pause,
    "/pause",
    "pause",
    "/collections/{collection}/pause",
    "pause_collection",
    "Ends the run between two batches; no other one starts until it is resumed"
);
order!(
    resume,
    Action::Resume,
    "/resume",
    "resume",
    "/collections/{collection}/resume",
    "resume_collection",
    "Runs again after a pause"
);
order!(
    catch_up,
    Action::CatchUp,
    "/catch-up",
    "catch_up",
    "/collections/{collection}/catch-up",
    "catch_up_collection",
    "Asks the source now, without the rest of a pause after an error"
);
order!(
    rescan,
    Action::Rescan,
    "/rescan",
    "rescan",
    "/collections/{collection}/rescan",
    "rescan_collection",
    "Compares with the whole source"
);

/// The routes of all orders.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(pause::all))
        .routes(routes!(pause::one))
        .routes(routes!(resume::all))
        .routes(routes!(resume::one))
        .routes(routes!(catch_up::all))
        .routes(routes!(catch_up::one))
        .routes(routes!(rescan::all))
        .routes(routes!(rescan::one))
}

async fn carry_out(
    action: Action,
    chosen: Chosen,
    collection: Option<CollectionName>,
) -> Result<Response, ApiProblem> {
    match chosen.watcher().order(action, collection.clone()).await {
        Ok(Some(ordered)) => Ok(json(&ordered)),
        Ok(None) => Err(ApiProblem::no_collection(&collection.unwrap_or_else(|| "".into()))),
        Err(error) => Err(ApiProblem::new(ApiProblemKind::Unavailable, error.to_string())),
    }
}
