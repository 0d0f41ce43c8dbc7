//! Every decoder of what others send or a disk may hold, as a function that libFuzzer calls with any bytes.
//!
//! A target does more than not panic: it compares with a slow reference or with the way back, keeps to the model's
//! rules, and takes memory in proportion to its input. Without libFuzzer the targets are tested with their seeds, with
//! some thousand inputs that grow of these, and with every input that once failed (`found/`). A new target is a file in `targets` and a line in [`TARGETS`].

pub mod draw;
pub mod grow;
pub mod json;
pub mod memory;
pub mod rows;
pub mod seeded;
pub mod targets;

use targets::{
    body, bulk, codec, config, cursor, definitions, exposition, json as json_write, line, otlp, page, query,
    record, remote_write, resource, segment, token,
};

/// One decoder under attack.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Fails loudly where the decoder does what it must not.
    pub check: fn(&[u8]),
    /// Inputs to begin with, made by encoders.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that inputs are made of.
    pub words: &'static [&'static str],
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "json", check: json_write::check, seeds: json_write::seeds, words: json_write::WORDS },
    Target { name: "line", check: line::check, seeds: line::seeds, words: line::WORDS },
    Target {
        name: "exposition",
        check: exposition::check,
        seeds: exposition::seeds,
        words: exposition::WORDS,
    },
    Target {
        name: "remote-write",
        check: remote_write::check,
        seeds: remote_write::seeds,
        words: &["__name__"],
    },
    Target { name: "otlp", check: otlp::check, seeds: otlp::seeds, words: otlp::WORDS },
    Target { name: "bulk", check: bulk::check, seeds: bulk::seeds, words: bulk::WORDS },
    Target { name: "body", check: body::check, seeds: body::seeds, words: body::WORDS },
    Target { name: "query", check: query::check, seeds: query::seeds, words: query::WORDS },
    Target { name: "cursor", check: cursor::check, seeds: cursor::seeds, words: &[] },
    Target { name: "token", check: token::check, seeds: token::seeds, words: token::WORDS },
    Target { name: "config", check: config::check, seeds: config::seeds, words: config::WORDS },
    Target { name: "segment", check: segment::check, seeds: segment::seeds, words: &[] },
    Target { name: "record", check: record::check, seeds: record::seeds, words: &[] },
    Target { name: "definitions", check: definitions::check, seeds: definitions::seeds, words: &[] },
    Target { name: "page", check: page::check, seeds: page::seeds, words: &[] },
    Target { name: "codec", check: codec::check, seeds: codec::seeds, words: &[] },
    Target { name: "resource", check: resource::check, seeds: resource::seeds, words: resource::WORDS },
];
