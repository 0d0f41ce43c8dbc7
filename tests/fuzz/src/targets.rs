//! One file a decoder.

pub mod body;
pub mod bulk;
pub mod codec;
pub mod config;
pub mod cursor;
pub mod definitions;
pub mod exposition;
pub mod json;
pub mod line;
pub mod otlp;
pub mod page;
pub mod query;
pub mod record;
pub mod remote_write;
pub mod resource;
pub mod segment;
pub mod token;
