//! `GET /openapi.json`: the description of the interface, made from its routes and types.

use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::problem::{PROBLEM_JSON, ProblemDocument};
use crate::document::MirrorName;

/// The problems that any request can meet, with the status of each.
const PROBLEMS: [(&str, &str); 8] = [
    ("400", "The request cannot be read"),
    ("404", "There is no such path, mirror or collection"),
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
    let mut inner = Vec::new();
    ProblemDocument::schemas(&mut inner);
    schemas.extend(inner);
    for (path, item) in &mut api.paths.paths {
        let is_of_agent = path.contains("{name}");
        for operation in operations(item) {
            let responses = &mut operation.responses.responses;
            for (status, description) in PROBLEMS {
                responses.entry(status.to_owned()).or_insert(RefOr::T(problem(description)));
            }
            if is_of_agent {
                let no_session = problem("The mirror has no session now");
                responses.entry("409".to_owned()).or_insert(RefOr::T(no_session));
                let name = ParameterBuilder::new()
                    .name("name")
                    .parameter_in(ParameterIn::Path)
                    .required(Required::True)
                    .description(Some("The name of the mirror in the config"))
                    .schema(Some(MirrorName::schema()))
                    .build();
                operation.parameters.get_or_insert_default().push(name.into());
            }
        }
    }
}

fn problem(description: &str) -> Response {
    let document = Ref::from_schema_name(ProblemDocument::name());
    let content = ContentBuilder::new().schema(Some(document)).build();
    ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build()
}

/// The operations of a path.
pub fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}
