//! Every route, in one list; their paths stand at the handlers, from where the OpenAPI document has them too.

pub mod admin;
pub mod backup;
pub mod cardinality;
pub mod cursor;
pub mod discover;
pub mod export;
pub mod health;
pub mod import;
pub mod input;
pub mod line_write;
pub mod metrics;
pub mod openapi;
pub mod otlp;
pub mod prom_write;
pub mod queries;
pub mod query;
pub mod submit;
#[cfg(test)]
mod testing;
pub mod text_write;
pub mod write;

use axum::routing::post;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::AppState;

/// Every route.
pub fn all() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::Frame::openapi())
        .routes(routes!(write::write))
        .routes(routes!(prom_write::prom_write))
        .routes(routes!(text_write::text_write))
        .routes(routes!(line_write::line_write))
        .routes(routes!(line_write::line_write_v1))
        .routes(routes!(line_write::ping))
        .routes(routes!(otlp::export))
        // Not HTTP's way to do it, so not in the document.
        .route(otlp::GRPC_PATH, post(otlp::export_grpc))
        .routes(routes!(query::query))
        .routes(routes!(query::explain))
        .routes(routes!(query::batch::batch))
        .routes(routes!(queries::list))
        .routes(routes!(queries::cancel))
        .routes(routes!(discover::metrics))
        .routes(routes!(discover::dimensions))
        .routes(routes!(discover::values))
        .routes(routes!(cardinality::cardinality))
        .routes(routes!(admin::delete_metric))
        .routes(routes!(admin::retention, admin::set_retention))
        .routes(routes!(admin::usage))
        .routes(routes!(import::import))
        .routes(routes!(export::export))
        .routes(routes!(backup::make))
        .routes(routes!(backup::list))
        .routes(routes!(backup::delete))
        .routes(routes!(openapi::openapi))
        .routes(routes!(health::health))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::startup))
        .routes(routes!(metrics::page))
}
