//! Black-box tests: the real worker, spoken to over HTTP.
