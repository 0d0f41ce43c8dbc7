//! ClickHouse's HTTP interface over the real engine: libchdb, which is ClickHouse as a library, called through
//! its C API. For development and tests: a program that talks to a ClickHouse server talks to this one.
//!
//! A request is authenticated ([`auth`]), parsed ([`request`], [`form`]), put to the engine ([`query`],
//! [`statement`]) on a connection of its own ([`engine`]), and answered as it comes ([`outlet`]).
//!
//! # What is as a server of the same version has it
//! - Paths (`/`, `/query`, `/ping`, `/replicas_status`, 404 with its text), methods (`GET` and `HEAD` read only,
//!   `POST` without a length is 411, `OPTIONS`), a query in the URL, in the body, or half in each, forms.
//! - Every format of the engine, both ways; `FORMAT`, `default_format` and `X-ClickHouse-Format`; content types.
//! - Settings, `database`, `param_…` (escaped as in TabSeparated) for one request; sessions with temporary tables,
//!   their timeouts and their lock (codes 372, 373, 374, 744); tables in a form.
//! - Statuses, `X-ClickHouse-Exception-Code` and texts of exceptions; an exception in the middle of an answer
//!   (`__exception__` with the tag of `X-ClickHouse-Exception-Tag`, then the connection breaks off); what
//!   `wait_end_of_query` and `buffer_size` do to it: the first MiB is kept back in any case.
//! - `compress`, `decompress` (LZ4, ZSTD and plain frames, checked), `Content-Encoding` and `Accept-Encoding` of gzip,
//!   deflate, zstd and lz4, on by default as in this version.
//! - Users by URL, headers or Basic authorisation (codes 194 and 516, never two ways at once); readers (code 164).
//! - Query ids: answered, listed in `system.processes`, unique while they run (code 216, `replace_running_query`),
//!   `KILL QUERY WHERE … [SYNC|ASYNC|TEST]`. `cancel_http_readonly_queries_on_client_close`; without it a query runs
//!   on until it has an answer that nobody takes.
//! - Inserts are blocks squashed and deduplicated (also by token) as in a server; an insert whose body breaks off
//!   inserts nothing.
//!
//! # What differs
//! - An answer's header names are in lower case, and `Connection` and `Keep-Alive` aren't sent.
//! - `X-ClickHouse-Summary` has `memory_usage` 0, and zeros where the answer is longer than what is kept back;
//!   there are no `X-ClickHouse-Progress` headers.
//! - `client_protocol_version` is ignored: Native blocks come without block information. Clients that ask first
//!   (clickhouse-connect does) see that.
//! - `http_write_exception_in_output_format=1` writes the exception as if it were 0. `stacktrace`, `role` and
//!   `quota_key` are ignored. brotli, xz, bzip2 and snappy are not built in.
//! - `currentUser()` is always `default`; there are no SQL users, roles, quotas and profiles, no `system.query_log`,
//!   no `max_concurrent_queries`: beyond `--connections`, queries wait for 10 s, then get code 202.
//! - `async_insert=1` inserts at once. A body is in memory before its insert starts, and so is an answer with
//!   `wait_end_of_query`.
//! - `system.processes` is replaced in queries, after `FROM`, `JOIN` or a comma; elsewhere (`SHOW PROCESSLIST`,
//!   `INSERT … SELECT`, views) the engine's ids show.
//! - `KILL QUERY … SYNC` waits for 30 s at most. In a session, readonly mode is judged by the statement's first word.
//! - `output_format_parallel_formatting` is off unless a request sets it: it would double what a small answer costs.
//! - What only a server has: no Keeper, no `ON CLUSTER`, no Replicated or Distributed tables that work.
//! - Syntax errors of inserts quote the statement without its data.

pub mod auth;
pub mod cluster;
pub mod compression;
pub mod engine;
pub mod exception;
pub mod form;
pub mod format;
pub mod lexer;
pub mod outlet;
pub mod processes;
pub mod query;
pub mod request;
pub mod restore;
pub mod serve;
pub mod server;
pub mod session;
pub mod socket;
pub mod sql;
pub mod statement;
