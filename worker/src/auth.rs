//! From a bearer token to a tenant.

use axum::http::HeaderMap;
use luminate_storage::model::Tenant;

use crate::error::Error;
use crate::tenant::{Caller, Scope};

/// Who checks tokens.
#[derive(Debug)]
pub struct Auth {
    everybody: Option<Caller>,
}

impl Auth {
    /// Without tokens: everybody is `tenant` with every scope.
    #[must_use]
    pub fn disabled(tenant: Tenant) -> Self {
        Self { everybody: Some(Caller { tenant, tier: None, scopes: Scope::ALL.to_vec() }) }
    }

    /// Who sent a request with these headers.
    ///
    /// # Errors
    /// `Unauthenticated`.
    pub fn caller(&self, _headers: &HeaderMap) -> Result<Caller, Error> {
        self.everybody.clone().ok_or(Error::Unauthenticated("a bearer token is needed"))
    }
}
