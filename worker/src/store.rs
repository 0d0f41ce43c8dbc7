//! Opening the store that the configuration names.
