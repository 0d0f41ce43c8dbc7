//! A database of its own on the tests' server, written to by plain inserts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Reader, Visible, day_of};
use crate::clickhouse::client::{Database, Insert};
use crate::clickhouse::schema::{self, Dialect};
use crate::clickhouse::testing;
use crate::clock::{Clock, ManualClock};
use crate::model::{Dimensions, MetricName, Tenant};
use crate::store::Retention;

/// A sample to write.
pub type Row = (MetricName, Dimensions, i64, f64);

/// A database with empty tables, and who asks.
pub struct Rig {
    pub database: Database,
    pub dialect: Dialect,
    pub clock: Arc<ManualClock>,
}

impl Rig {
    pub async fn open(clock: Arc<ManualClock>) -> Self {
        let options = testing::options(&testing::fresh_name(), clock.clone(), i64::MAX);
        let database = Database::new(&options).expect("no certificates are read");
        schema::migrate(&database, &options).await.expect("tables");
        let dialect = Dialect { cluster: None, fsync: false, alp: true, statistics: true };
        Self { database, dialect, clock }
    }

    pub fn reader<'a>(&'a self, tenant: &'a Tenant, retention: Retention) -> Reader<'a> {
        let visible = Visible { now: self.clock.now(), retention: Arc::new(retention) };
        Reader { database: &self.database, dialect: &self.dialect, threads: Some(2), tenant, visible }
    }

    /// Writes rows in one block; of two for the same series and millisecond the later wins.
    pub async fn write(&self, tenant: &Tenant, rows: &[Row]) {
        let (mut series, mut samples) = (BytesMut::new(), BytesMut::new());
        let latest: HashMap<_, _> = rows
            .iter()
            .map(|(metric, dimensions, time, value)| ((metric, dimensions, time), value))
            .collect();
        for ((metric, dimensions, time), value) in latest {
            let fp = xxhash_rust::xxh3::xxh3_64(format!("{metric:?}{dimensions:?}").as_bytes());
            for block in [&mut series, &mut samples] {
                text(block, tenant.as_str());
                text(block, metric.as_str());
                block.put_u64_le(fp);
            }
            series.put_i32_le(day_of(*time));
            series.put_u8(u8::try_from(dimensions.len()).expect("few"));
            for (key, value) in dimensions.iter() {
                text(&mut series, key.as_str());
                text(&mut series, value);
            }
            samples.put_i64_le(*time);
            samples.put_f64_le(*value);
        }
        self.insert("series (tenant, metric, fp, day, dimensions)", series.freeze()).await;
        self.insert("samples (tenant, metric, fp, ts, v)", samples.freeze()).await;
    }

    async fn insert(&self, into: &str, block: Bytes) {
        let within = Duration::from_secs(60);
        // The same block may be wanted again, after a delete.
        let settings = &[("insert_deduplication_token", fastrand::u64(..).to_string())];
        let insert = Insert { into, format: "RowBinary", block, settings, within };
        self.database.insert(&insert).await.expect("an insert");
    }

    pub async fn execute(&self, sql: &str) {
        self.database.statement(sql).within(Duration::from_secs(60)).execute().await.expect("a statement");
    }

    pub async fn merge(&self) {
        self.execute("OPTIMIZE TABLE samples FINAL").await;
        self.execute("OPTIMIZE TABLE series FINAL").await;
    }
}

fn text(block: &mut BytesMut, text: &str) {
    let mut length = text.len();
    while length >= 0x80 {
        block.put_u8(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
        length >>= 7;
    }
    block.put_u8(u8::try_from(length).expect("seven bits"));
    block.put_slice(text.as_bytes());
}
