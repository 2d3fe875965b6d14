//! `GET /openapi.json`: the description of the interface, made from its routes and types.

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{ContentBuilder, InfoBuilder, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::problem::{PROBLEM_JSON, ProblemDocument};

/// The problems that any request can meet, with the status of each.
const PROBLEMS: [(&str, &str); 8] = [
    ("400", "The request cannot be read"),
    ("404", "There is no such path, mirror, collection or cursor"),
    ("405", "The path does not have this method"),
    ("408", "The request took too long"),
    ("413", "The body is too large"),
    ("415", "The body is not JSON"),
    ("500", "The mirror has failed"),
    ("503", "The mirror cannot do this now"),
];

/// Adds what all operations have in common.
pub fn complete(api: &mut OpenApi) {
    api.info = InfoBuilder::new()
        .title("Plainfold")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Live copies of document databases as plain folders"))
        .build();
    let schemas = &mut api.components.get_or_insert_default().schemas;
    schemas.insert(ProblemDocument::name().into_owned(), ProblemDocument::schema());
    for item in api.paths.paths.values_mut() {
        for operation in operations(item) {
            for (status, description) in PROBLEMS {
                let content = ContentBuilder::new()
                    .schema(Some(Ref::from_schema_name(ProblemDocument::name())))
                    .build();
                let response = ResponseBuilder::new()
                    .description(description)
                    .content(PROBLEM_JSON, content)
                    .build();
                let responses = &mut operation.responses.responses;
                responses.entry(status.to_owned()).or_insert(RefOr::T(response));
            }
        }
    }
}

/// The operations of a path.
pub fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}
