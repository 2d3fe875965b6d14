//! `GET /openapi.json`: the description of the interface, made from its routes and types.

use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::problem::{ApiProblemKind, PROBLEM_JSON, ProblemDocument};
use crate::document::MirrorName;

/// The problems that any request can meet, but for those of the status 404.
const PROBLEMS: [ApiProblemKind; 6] = [
    ApiProblemKind::BadRequest,
    ApiProblemKind::NoMethod,
    ApiProblemKind::Late,
    ApiProblemKind::TooLarge,
    ApiProblemKind::Internal,
    ApiProblemKind::Unavailable,
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
            let no_session = is_of_agent.then_some(ApiProblemKind::NoSession);
            for kind in PROBLEMS.into_iter().chain(no_session) {
                let (status, _, title) = kind.parts();
                responses.entry(status.as_str().to_owned()).or_insert(RefOr::T(problem(title)));
            }
            let not_found = problem("There is no such path, mirror or collection");
            responses.entry("404".to_owned()).or_insert(RefOr::T(not_found));
            if is_of_agent {
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
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}
