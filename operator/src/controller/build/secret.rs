//! The secret of tokens, where the resource names none.

use serde_json::json;

use super::metadata::metadata;
use crate::controller::validate::{JWT_KEY, Validated, own_secret};
use crate::object::{Kind, Object};

/// A Secret that is made once and never overwritten. Its value isn't here: whoever creates it draws it, so
/// that this stays a pure description.
pub(super) fn own_keys(validated: &Validated) -> Object {
    let rest = json!({ "type": "Opaque", "stringData": { JWT_KEY: "" } });
    Object::new(Kind::Secret, metadata(validated, &own_secret(&validated.name)), rest).once()
}
