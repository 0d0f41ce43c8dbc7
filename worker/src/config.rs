//! Configuration: file and environment to one checked value.
