//! The operator with a fault put in on purpose; see `luminate_operator::seeded`.

use std::process::ExitCode;

#[path = "../main.rs"]
mod operator;

fn main() -> ExitCode {
    operator::main()
}
