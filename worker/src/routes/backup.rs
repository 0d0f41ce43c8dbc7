//! `/api/v1/admin/backup`: backups of the whole store, made, listed and deleted.
//!
//! A backup holds all tenants' samples, so no tenant's scope is enough for it: these routes need the scope
//! `backup`, which `admin` doesn't imply. Where a backup goes is configured and never the client's choice,
//! and its answer says nothing of what is in it but its size.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use luminate_storage::store::Backup;
use serde::Serialize;
use utoipa::ToSchema;

use super::input::Segments;
use super::openapi::{Missing, ReadErrors};
use crate::app::AppState;
use crate::error::{Error, ErrorBody};
use crate::tenant::CanBackUp;

/// A backup.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Backup)]
pub struct BackupBody {
    /// Its name: its folder in the configured directory.
    pub name: String,
    /// Its bytes; those that it shares with the store count.
    pub bytes: u64,
    /// The last commit in it.
    pub commit: u64,
    /// When it was begun, Unix milliseconds: every write acknowledged before then is in it.
    pub created: i64,
}

impl From<Backup> for BackupBody {
    fn from(backup: Backup) -> Self {
        let Backup { name, bytes, commit, created } = backup;
        Self { name, bytes, commit, created }
    }
}

/// The finished backups.
#[derive(Debug, Serialize, ToSchema)]
pub struct BackupsAnswer {
    /// Oldest first.
    pub backups: Vec<BackupBody>,
}

/// Makes a backup of all tenants while everything goes on; answers when it is on stable storage.
#[utoipa::path(
    post,
    path = "/api/v1/admin/backup",
    tag = "operate",
    responses(
        (status = 200, description = "The backup", body = BackupBody),
        (status = 409, description = "The store makes none, or makes one already", body = ErrorBody),
        ReadErrors,
    ),
    security(("token" = ["backup"])),
)]
pub async fn make(State(state): State<AppState>, _caller: CanBackUp) -> Result<Json<BackupBody>, Error> {
    Ok(Json(state.store()?.backup().await?.into()))
}

/// Lists the finished backups.
#[utoipa::path(
    get,
    path = "/api/v1/admin/backup",
    tag = "operate",
    responses(
        (status = 200, description = "The backups", body = BackupsAnswer),
        (status = 409, description = "The store makes none", body = ErrorBody),
        ReadErrors,
    ),
    security(("token" = ["backup"])),
)]
pub async fn list(State(state): State<AppState>, _caller: CanBackUp) -> Result<Json<BackupsAnswer>, Error> {
    let backups = state.store()?.backups().await?;
    Ok(Json(BackupsAnswer { backups: backups.into_iter().map(BackupBody::from).collect() }))
}

/// Deletes a backup.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/backup/{name}",
    tag = "operate",
    params(("name" = String, Path, description = "The backup's name")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 409, description = "The store makes none, or makes one now", body = ErrorBody),
        Missing,
        ReadErrors,
    ),
    security(("token" = ["backup"])),
)]
pub async fn delete(
    State(state): State<AppState>,
    _caller: CanBackUp,
    Segments(name): Segments<String>,
) -> Result<StatusCode, Error> {
    if state.store()?.delete_backup(&name).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Error::NoSuch("backup"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::App;

    #[tokio::test]
    async fn a_store_that_makes_no_backups_says_so() {
        let app = App::new();
        for (method, path) in [
            ("POST", "/api/v1/admin/backup"),
            ("GET", "/api/v1/admin/backup"),
            ("DELETE", "/api/v1/admin/backup/1-2"),
        ] {
            let answer = app.send(method, path, &[], "").await;
            assert_eq!(answer.error(), "409 REFUSED the backend memory makes no backups", "{method} {path}");
        }
    }
}
