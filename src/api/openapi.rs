//! `GET /openapi.json`: the description of the interface, made from its routes and types.

use axum::http::Method;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::problem::{ApiProblemKind, PROBLEM_JSON, ProblemDocument};
use super::role::Role;
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

/// The name of the way in which requests to an address are admitted.
const TOKEN: &str = "token";

/// What is said of it.
const BEARER: &str =
    "Needed at an address: a token that `plainfold token add` has made. Unix sockets need none";

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
    let bearer =
        HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(BEARER)).build();
    let schemes = &mut api.components.get_or_insert_default().security_schemes;
    schemes.insert(TOKEN.to_owned(), RefOr::T(SecurityScheme::Http(bearer)));
    for (path, item) in &mut api.paths.paths {
        let is_of_agent = path.contains("{name}");
        for (method, operation) in operations(item) {
            let responses = &mut operation.responses.responses;
            if let Some(role) = Role::needed(&method, path) {
                let needs = SecurityRequirement::new(TOKEN, Vec::<String>::new());
                operation.security = Some(vec![needs]);
                for kind in [ApiProblemKind::NoToken, ApiProblemKind::NoRole] {
                    let (status, ..) = kind.parts();
                    let role =
                        format!("A request to an address needs a token with the role `{role}`");
                    responses.insert(status.as_str().to_owned(), RefOr::T(problem(&role)));
                }
            }
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

/// The operations of a path, with their methods.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}
