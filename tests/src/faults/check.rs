//! What a store must hold after a plan.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::clients::METRIC;
use crate::clickhouse::ClickHouse;
use crate::client::Client;
use crate::ledger::{BEGIN, Step, step};

const DAY: i64 = 86_400_000;

/// Every sample of a writer, by two kinds of query, as the ledger takes them.
///
/// # Errors
/// An answer that isn't one, or two that disagree.
pub fn read(client: &Client, writer: u32) -> Result<Vec<(u32, i64, f64)>, String> {
    let query = |kind: serde_json::Value| {
        let mut query = json!({
            "metricName": METRIC, "filters": {"writer": writer.to_string()}, "limit": 10_000_000, "timeout": "60s",
            "timeRange": {"start": BEGIN - 2 * DAY, "end": BEGIN + 30 * DAY},
        });
        query.as_object_mut().expect("an object").extend(kind.as_object().expect("an object").clone());
        let answer = client.query(&query);
        if answer.status == 200 {
            Ok(answer.json())
        } else {
            Err(format!("a query failed: {}", answer.text()))
        }
    };
    let rows = query(json!({"queryType": "range"}))?;
    let found = rows["results"].as_array().ok_or("no results")?.iter().map(|row| {
        let series = row["dimensions"]["series"].as_str()?.parse().ok()?;
        Some((series, row["timestamp"].as_i64()?, row["value"].as_f64()?))
    });
    let found: Vec<_> = found.collect::<Option<_>>().ok_or("a row without its parts")?;
    let counted = query(json!({"queryType": "aggregate", "aggregation": "count"}))?;
    let counted = counted["results"][0]["count"].as_u64().unwrap_or(0);
    if counted == found.len() as u64 {
        Ok(found)
    } else {
        Err(format!("writer {writer}: {} samples read, but {counted} counted", found.len()))
    }
}

/// Counts the rows of every sample in the table as they were inserted. Those that were only ever in batches
/// that were sent once must have one row a batch; how many samples were looked at.
///
/// # Errors
/// Samples that have more rows.
pub fn count_rows(
    server: &ClickHouse,
    seed: u64,
    database: &str,
    ends: &[(u32, u64)],
    repeated: &[(u32, u64)],
) -> Result<u64, String> {
    let sql = format!(
        "SELECT series.1, series.2, toUnixTimestamp64Milli(ts), count() FROM {database}.samples \
         INNER JOIN (SELECT DISTINCT fp, (dimensions['writer'], dimensions['series']) AS series \
         FROM {database}.series) AS described USING fp GROUP BY ALL"
    );
    let mut held = BTreeMap::new();
    for line in server.query(&sql).lines() {
        let fields: Vec<i64> = line.split('\t').filter_map(|field| field.parse().ok()).collect();
        let [writer, series, time, rows] = fields[..] else { return Err(format!("no row: {line:?}")) };
        held.insert((writer, series, time), rows);
    }
    let (mut counted, mut doubled, mut example) = (0, 0, None);
    for (key, batches) in expected(seed, ends, repeated) {
        counted += 1;
        let rows = held.get(&key).copied().unwrap_or(0);
        if rows > batches {
            doubled += 1;
            example = Some((key, rows, batches));
        }
    }
    match example {
        None => Ok(counted),
        Some((key, rows, batches)) => Err(format!(
            "{doubled} of {counted} samples doubled in the table: {key:?} has {rows} rows of {batches} batches"
        )),
    }
}

/// In how many batches each sample was, (writer, series, time), without those of repeated ones.
fn expected(seed: u64, ends: &[(u32, u64)], repeated: &[(u32, u64)]) -> BTreeMap<(i64, i64, i64), i64> {
    let repeated: BTreeSet<&(u32, u64)> = repeated.iter().collect();
    let mut batches = BTreeMap::new();
    let mut unsure = BTreeSet::new();
    for (writer, number) in ends.iter().flat_map(|(writer, end)| (0..*end).map(|number| (*writer, number))) {
        let Step::Write(rows) = step(seed, writer, number) else { continue };
        let keys = rows.iter().map(|row| (i64::from(writer), i64::from(row.series), row.time));
        let keys: BTreeSet<_> = keys.collect();
        match repeated.contains(&(writer, number)) {
            true => unsure.extend(keys),
            false => keys.into_iter().for_each(|key| *batches.entry(key).or_default() += 1),
        }
    }
    batches.retain(|key, _| !unsure.contains(key));
    batches
}
