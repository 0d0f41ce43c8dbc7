//! libchdb through its C API: the only module with unsafe code.
//!
//! The library owns what it hands out: a connection until `chdb_close_conn`, a result until
//! `chdb_destroy_query_result`. [`Connection`] closes itself when dropped; a result is copied and destroyed
//! where it was made. One connection runs one query at a time, so its methods take `&mut self`; connections
//! may be used from different threads.
#![allow(unsafe_code, reason = "the C API of the engine; nothing else in this crate is unsafe")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use libloading::Library;

/// As many threads for merges and mutations as a server has; the library's own two take 0.1 s for each part
/// that a delete touches.
const BACKGROUND: &CStr = c"--background_pool_size=16";

/// A result of the C API.
type Raw = *mut c_void;

/// The functions of the C API that are used here, and the library that they live in.
struct Api {
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut *mut c_void,
    close: unsafe extern "C" fn(*mut *mut c_void),
    query: unsafe extern "C" fn(*mut c_void, *const c_char, usize, *const c_char, usize) -> Raw,
    buffer: unsafe extern "C" fn(Raw) -> *const u8,
    length: unsafe extern "C" fn(Raw) -> usize,
    error: unsafe extern "C" fn(Raw) -> *const c_char,
    elapsed: unsafe extern "C" fn(Raw) -> f64,
    result_rows: unsafe extern "C" fn(Raw) -> u64,
    result_bytes: unsafe extern "C" fn(Raw) -> u64,
    read_rows: unsafe extern "C" fn(Raw) -> u64,
    read_bytes: unsafe extern "C" fn(Raw) -> u64,
    written_rows: unsafe extern "C" fn(Raw) -> u64,
    written_bytes: unsafe extern "C" fn(Raw) -> u64,
    destroy: unsafe extern "C" fn(Raw),
    signals: unsafe extern "C" fn(c_int),
    _library: Library,
}

impl Api {
    fn load(library: &Path) -> Result<Self, libloading::Error> {
        // SAFETY: the caller names the engine's library; its initialisers are meant to run at load.
        let library = unsafe { Library::new(library) }?;
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: the C API declares this symbol with the type of the field that it initialises.
                *unsafe { library.get($name) }?
            };
        }
        Ok(Self {
            connect: symbol!(b"chdb_connect\0"),
            close: symbol!(b"chdb_close_conn\0"),
            query: symbol!(b"chdb_query_n\0"),
            buffer: symbol!(b"chdb_result_buffer\0"),
            length: symbol!(b"chdb_result_length\0"),
            error: symbol!(b"chdb_result_error\0"),
            elapsed: symbol!(b"chdb_result_elapsed\0"),
            result_rows: symbol!(b"chdb_result_rows_read\0"),
            result_bytes: symbol!(b"chdb_result_bytes_read\0"),
            read_rows: symbol!(b"chdb_result_storage_rows_read\0"),
            read_bytes: symbol!(b"chdb_result_storage_bytes_read\0"),
            written_rows: symbol!(b"chdb_result_rows_written\0"),
            written_bytes: symbol!(b"chdb_result_bytes_written\0"),
            destroy: symbol!(b"chdb_destroy_query_result\0"),
            signals: symbol!(b"chdb_set_signal_handlers_enabled\0"),
            _library: library,
        })
    }
}

/// The engine over one folder: it lives as long as one connection to it, and this holds one.
pub struct Engine {
    api: Arc<Api>,
    arguments: Vec<CString>,
    _keeper: Connection,
}

impl Engine {
    /// Loads the library and opens the folder, with a configuration file if one is given.
    ///
    /// # Errors
    /// The library can't be loaded, or the engine can't open the folder.
    pub fn open(library: &Path, folder: &Path, configuration: Option<&Path>) -> Result<Self, String> {
        let api = Api::load(library)
            .map_err(|error| format!("the engine {} can't be loaded: {error}", library.display()))?;
        // SAFETY: a plain switch; the process keeps its own handlers.
        unsafe { (api.signals)(0) };
        let api = Arc::new(api);
        let named = |option: &str, path: &Path| {
            let argument = [option.as_bytes(), path.as_os_str().as_bytes()].concat();
            CString::new(argument).map_err(|_| "the folder's name holds a zero byte".to_owned())
        };
        let mut arguments = vec![c"clickhouse".to_owned(), named("--path=", folder)?, BACKGROUND.to_owned()];
        if let Some(file) = configuration {
            arguments.push(named("--config-file=", file)?);
        }
        let keeper = Connection::open(&api, &arguments)
            .ok_or_else(|| format!("the engine can't open {}", folder.display()))?;
        Ok(Self { api, arguments, _keeper: keeper })
    }

    /// A new connection with its own settings, parameters, current database and temporary tables.
    ///
    /// # Errors
    /// The engine refuses it.
    pub fn connect(&self) -> Result<Connection, String> {
        Connection::open(&self.api, &self.arguments).ok_or_else(|| {
            "Code: 210. DB::NetException: The engine refuses a connection. (NETWORK_ERROR)".into()
        })
    }
}

/// One connection to the engine.
pub struct Connection {
    api: Arc<Api>,
    handle: *mut *mut c_void,
}

// SAFETY: the engine lets any thread use a connection, one at a time, which `&mut self` ensures.
unsafe impl Send for Connection {}
// SAFETY: no method takes `&self`.
unsafe impl Sync for Connection {}

impl Connection {
    fn open(api: &Arc<Api>, arguments: &[CString]) -> Option<Self> {
        let mut pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len()).ok()?;
        // SAFETY: so many strings, which outlive the call, and which it only reads.
        let handle = unsafe { (api.connect)(count, pointers.as_mut_ptr()) };
        // SAFETY: a pointer that isn't null is one to a connection.
        let usable = !handle.is_null() && !unsafe { *handle }.is_null();
        usable.then(|| Self { api: Arc::clone(api), handle })
    }

    /// Runs one query; `format` holds where the query names none.
    ///
    /// # Errors
    /// The engine's exception, as its text.
    pub fn query(&mut self, sql: &[u8], format: &str) -> Result<Answer, String> {
        let api = &self.api;
        // SAFETY: the connection is open; both texts outlive the call and their lengths are theirs.
        let raw = unsafe {
            (api.query)(*self.handle, sql.as_ptr().cast(), sql.len(), format.as_ptr().cast(), format.len())
        };
        if raw.is_null() {
            return Err("Code: 1002. DB::Exception: The engine gave no result. (UNKNOWN_EXCEPTION)".into());
        }
        // SAFETY: `raw` is a result that nobody has destroyed; an error is a string that it owns.
        let error = unsafe { (api.error)(raw).as_ref().map(|text| CStr::from_ptr(text)) };
        let outcome = match error {
            Some(text) if !text.is_empty() => Err(text.to_string_lossy().into_owned()),
            // SAFETY: as above.
            _ => Ok(unsafe { Answer::read(api, raw) }),
        };
        // SAFETY: destroyed once; what was read from it was copied.
        unsafe { (api.destroy)(raw) };
        outcome
    }

    /// Runs one query whose answer is of no interest.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub fn execute(&mut self, sql: &str) -> Result<(), String> {
        self.query(sql.as_bytes(), "Null").map(drop)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: open until here, and closed once.
        unsafe { (self.api.close)(self.handle) };
    }
}

/// What a query answered and did.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The answer in its format.
    pub output: Vec<u8>,
    /// Seconds.
    pub elapsed: f64,
    /// Rows that the query answered.
    pub result_rows: u64,
    /// Bytes of these, in memory.
    pub result_bytes: u64,
    /// Rows that it read from tables.
    pub read_rows: u64,
    /// Bytes that it read from tables.
    pub read_bytes: u64,
    /// Rows that it inserted.
    pub written_rows: u64,
    /// Bytes that it inserted.
    pub written_bytes: u64,
}

impl Answer {
    /// # Safety
    /// `raw` is a result without an error that nobody has destroyed.
    unsafe fn read(api: &Api, raw: Raw) -> Self {
        // SAFETY: the buffer belongs to the result and has the length that it says.
        unsafe {
            let (start, length) = ((api.buffer)(raw), (api.length)(raw));
            let output = match length {
                0 => Vec::new(),
                _ => ptr::slice_from_raw_parts(start, length).as_ref().unwrap_or_default().to_vec(),
            };
            Self {
                output,
                elapsed: (api.elapsed)(raw),
                result_rows: (api.result_rows)(raw),
                result_bytes: (api.result_bytes)(raw),
                read_rows: (api.read_rows)(raw),
                read_bytes: (api.read_bytes)(raw),
                written_rows: (api.written_rows)(raw),
                written_bytes: (api.written_bytes)(raw),
            }
        }
    }
}
