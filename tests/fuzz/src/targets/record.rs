//! Bodies of log records: what is read is written again, and means the same.

use luminate_storage::model::{MetricName, Tenant};
use luminate_storage::rocksdb::record::{
    Operation, Rows, put_accepted, put_definitions, put_delete, put_retention, put_rows, read,
};
use luminate_storage::store::Retention;

use crate::memory;

/// Reads a body.
pub fn check(body: &[u8]) {
    let again = memory::within((1 << 20) + 256 * body.len(), || written(body));
    if let Some(again) = again {
        assert_eq!(written(&again).as_deref(), Some(again.as_slice()), "what was written is read otherwise");
    }
}

/// What a body says, written by the encoder; nothing where it can't be read.
fn written(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let done = read(body, &mut |operation| {
        match operation {
            Operation::Definitions(blob) => put_definitions(&mut out, blob),
            Operation::Rows(rows) => {
                assert!(rows.ids.len() == rows.times.len() && rows.ids.len() == rows.values.len());
                put_rows(&mut out, &rows);
            }
            Operation::Delete { metric, before } => put_delete(&mut out, metric, before),
            Operation::Retention(tenant, retention) => put_retention(&mut out, &tenant, &retention),
            Operation::Accepted(time) => put_accepted(&mut out, time),
        }
        Ok(())
    });
    done.ok().map(|()| out)
}

/// A body with every operation.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let tenant = Tenant::new("acme").expect("a valid name");
    let rows = Rows {
        tenant: tenant.clone(),
        ids: vec![1, 9, u32::MAX, 9],
        times: vec![1_700_000_000_000, 1_700_000_000_000, -5, i64::MAX],
        values: vec![1.5, -0.0, f64::MAX, 5e-324],
    };
    let metrics = [(MetricName::new("debug").expect("a valid name"), 86_400_000)].into();
    let mut body = Vec::new();
    put_definitions(&mut body, b"blob");
    put_accepted(&mut body, -7);
    put_rows(&mut body, &rows);
    put_delete(&mut body, 7, i64::MAX);
    put_retention(&mut body, &tenant, &Retention { default: 7, metrics });
    vec![body]
}
