//! What holds for every route, put into the document once it is whole.

use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Required};

/// How the names of metrics and dimensions are written.
const NAME: &str = "^[a-zA-Z_][a-zA-Z0-9_]*$";
const MAX_METRIC: usize = luminate_storage::model::MAX_METRIC_CHARS;
const MAX_KEY: usize = luminate_storage::model::MAX_KEY_CHARS;
const ERROR: &str = "ErrorBody";
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

/// Completes every operation of `document`.
pub fn complete(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            refusals(operation);
            body(operation);
            bytes(operation);
            for parameter in operation.parameters.iter_mut().flatten() {
                if let RefOr::T(parameter) = parameter {
                    name(path, parameter);
                }
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

/// A refusal that says what became of the samples is an error's answer alone where nothing was read of the body.
fn refusals(operation: &mut Operation) {
    let error = RefOr::Ref(Ref::from_schema_name(ERROR));
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let Some(RefOr::T(content)) = response.content.get_mut(JSON) else { continue };
        let own = content.schema.as_ref().filter(|own| **own != error);
        if let Some(own) = own.filter(|_| status.starts_with(['4', '5'])) {
            let either = AnyOfBuilder::new().item(own.clone()).item(error.clone());
            content.schema = Some(either.into());
        }
    }
}

/// A text of no lines, and a message of no fields, are empty bodies; no JSON is.
fn body(operation: &mut Operation) {
    if let Some(RefOr::T(body)) = &mut operation.request_body
        && body.content.keys().any(|media| media != JSON)
    {
        body.required = Some(Required::False);
    }
}

/// Bytes have no schema: their media type says all (OpenAPI 3.1, "Considerations for File Uploads").
fn bytes(operation: &mut Operation) {
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.content.get_mut(PROTOBUF).map(without_schema);
    }
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            response.content.get_mut(PROTOBUF).map(without_schema);
        }
    }
}

fn without_schema(content: &mut RefOr<Content>) {
    if let RefOr::T(content) = content {
        content.schema = None;
    }
}

/// The names of metrics and keys in paths.
fn name(path: &str, parameter: &mut Parameter) {
    let longest = match parameter.name.as_str() {
        "name" if path.contains("/metrics/") => MAX_METRIC,
        "key" => MAX_KEY,
        _ => return,
    };
    if let (ParameterIn::Path, Some(RefOr::T(Schema::Object(schema)))) =
        (&parameter.parameter_in, &mut parameter.schema)
    {
        schema.pattern = Some(NAME.to_owned());
        schema.max_length = Some(longest);
    }
}
