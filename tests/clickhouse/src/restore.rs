//! A session's settings and database, which a request's URL changes for that request only.

use crate::engine::{Answer, Connection};
use crate::exception::Exception;
use crate::request::Request;
use crate::sql::{identifier, quoted};

/// What a session had before a query whose URL changes it for itself only.
pub struct Before {
    settings: Vec<(String, String)>,
    database: Option<String>,
}

impl Before {
    /// What a request is about to change.
    ///
    /// # Errors
    /// The engine's exception.
    pub fn of(connection: &mut Connection, request: &Request) -> Result<Self, Exception> {
        let names: Vec<_> = request.settings.iter().map(|(name, _)| quoted(name)).collect();
        let sql = format!(
            "SELECT name, value FROM system.settings WHERE has([{}]::Array(String), name)",
            names.join(", ")
        );
        let answer = ask(connection, &sql, "JSONCompactEachRow")?;
        let settings = String::from_utf8_lossy(&answer.output)
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let database = ask(connection, "SELECT currentDatabase()", "TSVRaw")?;
        let database =
            request.database.is_some().then(|| String::from_utf8_lossy(&database.output).trim().to_owned());
        Ok(Self { settings, database })
    }

    /// Puts it back.
    pub fn restore(self, connection: &mut Connection) {
        let settings: Vec<_> = self
            .settings
            .iter()
            .map(|(name, value)| format!("{} = {}", identifier(name), quoted(value)))
            .collect();
        if !settings.is_empty() {
            let _ = connection.execute(&format!("SET {}", settings.join(", ")));
        }
        if let Some(database) = self.database {
            let _ = connection.execute(&format!("USE {}", identifier(&database)));
        }
    }
}

fn ask(connection: &mut Connection, sql: &str, format: &str) -> Result<Answer, Exception> {
    connection.query(sql.as_bytes(), format).map_err(|said| Exception::of_engine(&said))
}
