//! What there is to write: tenants, metrics, series, and how values and times come about.

use std::collections::HashMap;

use fastrand::Rng;

use crate::contract::trial::{DAY, HOUR, SECOND};
use crate::model::{DimensionLimits, Dimensions, MetricName, SeriesLimits, Tenant};

/// A row to write: which of the metrics, which of its series, when, what.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub metric: MetricName,
    pub dimensions: Dimensions,
    pub time: i64,
    pub value: f64,
}

/// How a metric's values come about.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Grows, and begins again at times.
    Counter,
    /// Walks in steps of a hundredth.
    Decimal,
    /// A small whole number.
    Integer,
    /// Hardly ever changes.
    Constant,
    /// Every bit is random.
    Entropy,
}

/// One metric of every tenant.
#[derive(Debug)]
pub struct Metric {
    pub name: MetricName,
    kind: Kind,
    /// Usual distance between two samples, in milliseconds.
    spacing: i64,
    pub series: Vec<Dimensions>,
}

/// Everything that the steps of a run are drawn from.
#[derive(Debug)]
pub struct World {
    /// Those that writes, deletes and retention pick.
    pub tenants: Vec<Tenant>,
    /// Two who always get the same rows.
    pub twins: [Tenant; 2],
    pub metrics: Vec<Metric>,
    /// The last value of each series.
    last: HashMap<(Tenant, MetricName, Dimensions), f64>,
    /// Rows written lately, to be written again.
    recent: Vec<(Tenant, Row)>,
}

const RECENT: usize = 400;

impl World {
    /// A world of its own.
    pub fn new(random: &mut Rng) -> Self {
        let tenant = |name| Tenant::new(name).expect("a valid tenant");
        let metrics = [
            ("m", Kind::Counter, 10 * SECOND, 6),
            ("m_", Kind::Decimal, 15 * SECOND, 40),
            ("mm", Kind::Entropy, 997, 12),
            ("requests_total", Kind::Counter, 60 * SECOND, 150),
            ("one", Kind::Integer, SECOND, 1),
            ("state", Kind::Constant, 30 * SECOND, 8),
            ("wide", Kind::Integer, 300 * SECOND, 900),
        ];
        let metric = |(name, kind, spacing, count)| Metric {
            name: MetricName::new(name).expect("a valid metric"),
            kind,
            spacing,
            series: series(random, count),
        };
        Self {
            tenants: ["a", "a-", "aa"].map(tenant).to_vec(),
            twins: ["twin", "twin-"].map(tenant),
            metrics: metrics.map(metric).into_iter().collect(),
            last: HashMap::new(),
            recent: Vec::new(),
        }
    }

    /// Any tenant, the twins too.
    pub fn anybody(&self, random: &mut Rng) -> Tenant {
        match random.usize(..8) {
            7 => random.choice(&self.twins).expect("two").clone(),
            _ => self.somebody(random),
        }
    }

    /// A tenant who isn't a twin.
    pub fn somebody(&self, random: &mut Rng) -> Tenant {
        random.choice(&self.tenants).expect("three").clone()
    }

    /// One of the metrics, the wide one seldom.
    pub fn metric(&self, random: &mut Rng) -> &Metric {
        let last = self.metrics.len() - 1;
        &self.metrics[if random.u8(..12) == 0 { last } else { random.usize(..last) }]
    }

    /// Some of what `tenant` got lately.
    pub fn recent_of(&self, tenant: &Tenant) -> Vec<&Row> {
        let tenant = if *tenant == self.twins[1] { &self.twins[0] } else { tenant };
        self.recent.iter().filter(|(owner, _)| owner == tenant).map(|(_, row)| row).collect()
    }

    /// Rows for a write of `tenant` around `now`, in one of the ways in which samples arrive.
    pub fn rows(&mut self, random: &mut Rng, tenant: &Tenant, now: i64) -> Vec<Row> {
        let mut rows = match random.u8(..10) {
            0..5 => self.steady(random, tenant, now),
            5..7 => self.burst(random, tenant, now),
            7 => self.late(random, tenant, now),
            8 => self.again(random, tenant),
            _ => [self.steady(random, tenant, now), self.late(random, tenant, now)].concat(),
        };
        if random.u8(..8) == 0 {
            // The same series and millisecond twice in one batch.
            let doubled = rows.iter().filter(|_| random.u8(..4) == 0).cloned().collect::<Vec<_>>();
            rows.extend(doubled.into_iter().map(|row| Row { value: row.value + 1.0, ..row }));
        }
        if random.u8(..4) == 0 {
            random.shuffle(&mut rows);
        }
        self.remember(random, tenant, &rows);
        rows
    }

    /// Many series at the same regular times, up to now.
    fn steady(&mut self, random: &mut Rng, tenant: &Tenant, now: i64) -> Vec<Row> {
        let metric = self.metric(random);
        let all = metric.series.len();
        let spacing = metric.spacing * random.choice(&[1, 1, 4, 20]).expect("four");
        let steps = random.i64(1..=if all > 100 { 3 } else { 60 });
        let first = random.usize(..all);
        let series = metric.series[first..all.min(first + random.usize(1..=300))].to_vec();
        let name = metric.name.clone();
        let newest = now.div_euclid(spacing) * spacing + random.i64(-1..=1) * spacing;
        let mut rows = Vec::new();
        for step in (0..steps).rev() {
            for dimensions in &series {
                rows.push(self.row(random, tenant, &name, dimensions, newest - step * spacing));
            }
        }
        rows
    }

    /// One series, many samples, not quite regular.
    fn burst(&mut self, random: &mut Rng, tenant: &Tenant, now: i64) -> Vec<Row> {
        let metric = self.metric(random);
        let (spacing, name) = (metric.spacing, metric.name.clone());
        let dimensions = random.choice(&metric.series).expect("a series").clone();
        let mut time = now - random.i64(0..=4) * HOUR;
        let mut rows = Vec::new();
        for _ in 0..random.usize(20..600) {
            time += 1 + random.i64(0..spacing * 3 / 2);
            if time > now + HOUR {
                break;
            }
            rows.push(self.row(random, tenant, &name, &dimensions, time));
        }
        rows
    }

    /// A few series, times anywhere in the last seven days.
    fn late(&mut self, random: &mut Rng, tenant: &Tenant, now: i64) -> Vec<Row> {
        let mut rows = Vec::new();
        for _ in 0..random.usize(1..30) {
            let metric = self.metric(random);
            let name = metric.name.clone();
            let dimensions = random.choice(&metric.series).expect("a series").clone();
            let time = now - random.i64(0..7 * DAY);
            let time = if random.bool() { time } else { time.div_euclid(HOUR) * HOUR };
            rows.push(self.row(random, tenant, &name, &dimensions, time));
        }
        rows
    }

    /// Samples written before, with other values.
    fn again(&mut self, random: &mut Rng, tenant: &Tenant) -> Vec<Row> {
        let mut rows: Vec<Row> =
            self.recent_of(tenant).into_iter().filter(|_| random.bool()).cloned().collect();
        for row in &mut rows {
            row.value += f64::from(random.i32(-3..=3));
        }
        rows
    }

    fn row(
        &mut self,
        random: &mut Rng,
        tenant: &Tenant,
        name: &MetricName,
        dimensions: &Dimensions,
        time: i64,
    ) -> Row {
        let kind = self.metrics.iter().find(|metric| metric.name == *name).expect("one of ours").kind;
        let last = self.last.entry((tenant.clone(), name.clone(), dimensions.clone())).or_default();
        *last = next(random, kind, *last);
        Row { metric: name.clone(), dimensions: dimensions.clone(), time, value: *last }
    }

    fn remember(&mut self, random: &mut Rng, tenant: &Tenant, rows: &[Row]) {
        for _ in 0..rows.len().min(20) {
            let row = random.choice(rows).expect("a row").clone();
            self.recent.push((tenant.clone(), row));
        }
        let excess = self.recent.len().saturating_sub(RECENT);
        self.recent.drain(..excess);
    }
}

/// The value after `last`.
fn next(random: &mut Rng, kind: Kind, last: f64) -> f64 {
    match kind {
        Kind::Counter if random.u8(..60) == 0 => f64::from(random.u8(..4)),
        Kind::Counter => last + f64::from(random.u32(..50)),
        Kind::Decimal => ((last * 100.0).round() + f64::from(random.i32(-150..=150))) / 100.0,
        Kind::Integer => f64::from(random.i32(-20..100)),
        Kind::Constant if random.u8(..80) == 0 => f64::from(random.i32(-2..3)) / 2.0,
        Kind::Constant => last,
        Kind::Entropy => (random.f64() - 0.3) * 10_f64.powi(random.i32(-3..4)),
    }
}

/// `count` distinct series; some lack a key that others have.
fn series(random: &mut Rng, count: usize) -> Vec<Dimensions> {
    let mut all = Vec::new();
    for at in 0..count {
        let host = format!("h{at}");
        let mut pairs = vec![("host", host.as_str())];
        if at == 0 {
            pairs.clear();
        }
        if random.u8(..4) > 0 {
            pairs.push(("region", *random.choice(&["eu", "eu-west", "us", "é"]).expect("a value")));
        }
        if random.u8(..3) == 0 {
            pairs.push(("_z", *random.choice(&["1", "10", "2"]).expect("a value")));
        }
        all.push(Dimensions::new(pairs, &DimensionLimits::default()).expect("valid dimensions"));
    }
    all
}

/// Limits for a write: mostly none, else so low that they are met.
pub fn limits(random: &mut Rng) -> SeriesLimits {
    match random.u8(..10) {
        0 => SeriesLimits { max_metrics: random.u64(2..8), max_series_per_metric: random.u64(1..60) },
        _ => SeriesLimits::NONE,
    }
}
