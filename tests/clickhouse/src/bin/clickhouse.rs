//! The server's command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use luminate_clickhouse::auth::User;
use luminate_clickhouse::serve;
use luminate_clickhouse::server::Options;

/// ClickHouse's HTTP interface over the real engine, for development and tests.
#[derive(Parser)]
struct Arguments {
    /// Folder of the data, made if it isn't there.
    #[arg(long)]
    path: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 is any that is free.
    #[arg(long, default_value_t = 8123)]
    port: u16,
    /// libchdb.so; `.ci/tools clickhouse` puts it where it is looked for by default.
    #[arg(long, env = "LUMINATE_LIBCHDB")]
    library: Option<PathBuf>,
    /// Name of the user who may do everything: `default` without a password if not given.
    #[arg(long, requires = "password")]
    user: Option<String>,
    /// Password of that user.
    #[arg(long, requires = "user")]
    password: Option<String>,
    /// NAME:PASSWORD of a user who may only read; may be given more than once.
    #[arg(long, value_name = "NAME:PASSWORD")]
    reader: Vec<String>,
    /// Name of a cluster that this server is the only member of.
    #[arg(long)]
    cluster: Option<String>,
    /// How many queries run at a time.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Stop when the standard input closes.
    #[arg(long)]
    stop_with_stdin: bool,
    /// Print one line for each query: user, duration and code, never its text.
    #[arg(long)]
    log: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("clickhouse: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), String> {
    let library = arguments.library.unwrap_or_else(cached);
    if !library.is_file() {
        return Err(format!("the engine isn't at {}: run .ci/tools clickhouse", library.display()));
    }
    let writer = arguments.user.zip(arguments.password);
    let mut users: Vec<_> =
        writer.into_iter().map(|(name, password)| User { name, password, reads_only: false }).collect();
    for reader in &arguments.reader {
        let (name, password) =
            reader.split_once(':').ok_or_else(|| "--reader is NAME:PASSWORD".to_owned())?;
        users.push(User { name: name.into(), password: password.into(), reads_only: true });
    }
    let options = Options {
        library,
        folder: arguments.path,
        cluster: arguments.cluster,
        users,
        connections: arguments.connections,
        log: arguments.log,
    };
    serve::run(options, SocketAddr::new(arguments.host, arguments.port), arguments.stop_with_stdin)
}

/// Where `.ci/tools clickhouse` puts the library.
fn cached() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    cache.join("luminate/clickhouse/libchdb.so")
}
