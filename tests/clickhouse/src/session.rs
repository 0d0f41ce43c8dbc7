//! Named sessions: a connection kept between requests, with its settings and temporary tables.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::engine::Connection;
use crate::exception::Exception;

/// How long a session lives without a request, where the request doesn't say.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest that a request may ask for.
pub const LONGEST: Duration = Duration::from_secs(3_600);

/// A user's name and a session's.
pub type Key = (String, String);

/// A session between requests, or one that a request holds.
struct Slot {
    connection: Option<Connection>,
    expires: Instant,
}

/// All sessions.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<Key, Slot>>);

impl Sessions {
    /// Takes a session's connection; none where the session is new.
    ///
    /// # Errors
    /// Code 373 where another request holds it, 372 where it must exist and doesn't.
    pub fn acquire(&self, key: &Key, must_exist: bool) -> Result<Option<Connection>, Exception> {
        let mut slots = self.0.lock();
        match slots.get_mut(key) {
            Some(slot) => slot.connection.take().map(Some).ok_or_else(|| {
                let message = format!("Session {} is locked by a concurrent client", key.1);
                Exception::new(373, "SESSION_IS_LOCKED", message)
            }),
            None if must_exist => {
                Err(Exception::new(372, "SESSION_NOT_FOUND", format!("Session {} not found", key.1)))
            }
            None => {
                let slot = Slot { connection: None, expires: Instant::now() + LONGEST };
                slots.insert(key.clone(), slot);
                Ok(None)
            }
        }
    }

    /// Gives a session back, or ends it.
    pub fn release(&self, key: &Key, connection: Option<Connection>, timeout: Duration) {
        let mut slots = self.0.lock();
        match connection {
            Some(connection) => {
                let slot = Slot { connection: Some(connection), expires: Instant::now() + timeout };
                slots.insert(key.clone(), slot);
            }
            None => drop(slots.remove(key)),
        }
    }

    /// Ends what nobody used for its time.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.0.lock().retain(|_, slot| slot.connection.is_none() || slot.expires > now);
    }

    /// Ends all.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}
