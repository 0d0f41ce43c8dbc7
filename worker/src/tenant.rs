//! Who asks: the extractors that are a handler's only way to a tenant.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use luminate_storage::model::Tenant;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::AppState;
use crate::error::Error;
use crate::limits::Bucket;

/// What a token allows; none implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Querying and discovering.
    Read,
    /// Writing samples.
    Write,
    /// Deleting, retention, usage.
    Admin,
    /// Backups, which hold all tenants' samples: for whoever runs the installation, and implied by nothing
    /// that a tenant has.
    Backup,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Admin, Self::Backup];

    /// Its name in a token.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Backup => "backup",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A tenant whose token has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose series.
    pub tenant: Tenant,
    /// Whose limits, when the token names a tier.
    pub tier: Option<Arc<str>>,
    /// What the token allows.
    pub scopes: Vec<Scope>,
}

/// Which scope a route needs, as a type.
pub trait Needs: Send + Sync + 'static {
    /// The scope.
    const SCOPE: Scope;
    /// The tenant's budget of requests that it is charged to.
    const BUCKET: Bucket;
}

/// A route that reads.
#[derive(Debug, Clone, Copy)]
pub struct Reading;
/// A route that writes.
#[derive(Debug, Clone, Copy)]
pub struct Writing;
/// A route that administers.
#[derive(Debug, Clone, Copy)]
pub struct Administering;

/// A route of backups.
#[derive(Debug, Clone, Copy)]
pub struct BackingUp;

impl Needs for Reading {
    const SCOPE: Scope = Scope::Read;
    const BUCKET: Bucket = Bucket::Query;
}
impl Needs for Writing {
    const SCOPE: Scope = Scope::Write;
    const BUCKET: Bucket = Bucket::Write;
}
impl Needs for Administering {
    const SCOPE: Scope = Scope::Admin;
    const BUCKET: Bucket = Bucket::Query;
}

impl Needs for BackingUp {
    const SCOPE: Scope = Scope::Backup;
    const BUCKET: Bucket = Bucket::Query;
}

/// Proof that the request's token is valid, has the scope, and that its tenant's budget of requests isn't used up.
#[derive(Debug, Clone)]
pub struct Scoped<N> {
    /// Who asks.
    pub caller: Caller,
    needs: PhantomData<N>,
}

/// For routes that read.
pub type CanRead = Scoped<Reading>;
/// For routes that write.
pub type CanWrite = Scoped<Writing>;
/// For routes that administer.
pub type CanAdmin = Scoped<Administering>;
/// For routes of backups.
pub type CanBackUp = Scoped<BackingUp>;

impl<N> Scoped<N> {
    /// Whose series.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.caller.tenant
    }
}

impl<N: Needs> FromRequestParts<AppState> for Scoped<N> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Error> {
        let caller = state.auth.caller(&parts.headers)?;
        if !caller.scopes.contains(&N::SCOPE) {
            return Err(Error::MissingScope(N::SCOPE));
        }
        state.limits.request(&caller, N::BUCKET)?;
        if N::SCOPE == Scope::Write {
            state.metrics.writes(&caller);
        }
        // For the budget of bodies, which is charged next.
        parts.extensions.insert(caller.tenant.clone());
        Ok(Self { caller, needs: PhantomData })
    }
}
