//! Logs: JSON lines, or text on a terminal; on standard error.

use std::io::IsTerminal;

use luminate_crds::worker_config::{LogFormat, LogLevel, Logging};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt};

/// Writes logs as `logging` says, from now on; panics are logged too.
///
/// # Errors
/// Logs are written already.
pub fn start(logging: &Logging) -> Result<(), TryInitError> {
    let terminal = std::io::stderr().is_terminal();
    let usual = if terminal { LogFormat::Text } else { LogFormat::Json };
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match logging.format.unwrap_or(usual) {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        LogFormat::Text => lines.with_target(false).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter(logging.level))).try_init()?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a thread panicked");
    }));
    Ok(())
}

/// Our own lines at the level asked for; libraries only speak up when something is wrong.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("luminate_worker", level)
        .with_target("luminate_storage", level)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_are_quiet_at_every_level() {
        assert!(filter(LogLevel::Trace).would_enable("luminate_worker::server", &Level::TRACE));
        assert!(!filter(LogLevel::Trace).would_enable("h2::codec", &Level::DEBUG));
        assert!(filter(LogLevel::Info).would_enable("hyper", &Level::WARN));
        assert!(!filter(LogLevel::Error).would_enable("hyper", &Level::WARN));
        assert!(!filter(LogLevel::Info).would_enable("luminate_storage", &Level::DEBUG));
    }
}
