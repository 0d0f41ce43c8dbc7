//! Every route, in one list; their paths stand at the handlers, from where the OpenAPI document has them too.

pub mod admin;
pub mod cardinality;
pub mod discover;
pub mod health;
pub mod metrics;
pub mod openapi;
pub mod prom_write;
pub mod queries;
pub mod query;
pub mod write;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::AppState;

/// Every route.
pub fn all() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(health::health))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::startup))
        .routes(routes!(metrics::page))
}
