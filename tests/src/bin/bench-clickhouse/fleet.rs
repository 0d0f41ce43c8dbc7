//! The samples that every schema gets: machines, each with the same metrics, at the same times.

use fastrand::Rng;
use luminate_tests::bench::data::{Shape, Values, dimensions};
use luminate_tests::client::now;
use xxhash_rust::xxh3::xxh3_64;

/// Milliseconds between two samples of a series.
const STEP: i64 = 10_000;
const WINDOW: i64 = 300_000;

/// A fleet.
#[derive(Debug)]
pub struct Fleet {
    /// Machines.
    pub hosts: usize,
    /// Names and kinds of the metrics.
    pub metrics: Vec<(String, Shape)>,
    /// Samples of a series.
    pub steps: usize,
    /// The first sample's time; a full window.
    pub begin: i64,
    /// The dimensions of each machine.
    dimensions: Vec<Vec<(&'static str, String)>>,
}

/// A sample in the order in which samples arrive.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Which metric.
    pub metric: usize,
    /// Which machine.
    pub host: usize,
    /// Unix milliseconds.
    pub time: i64,
    /// The value.
    pub value: f64,
}

impl Fleet {
    /// So many metrics on so many machines, three gauges of two decimals to two counters; the last sample
    /// is of this minute.
    pub fn new(hosts: usize, metrics: usize, steps: usize) -> Self {
        let metric = |number: usize| match number % 5 {
            0..3 => (format!("gauge_{number}"), Shape::Decimals),
            _ => (format!("counter_{number}"), Shape::Counter),
        };
        let begin = (now() - steps as i64 * STEP) / WINDOW * WINDOW;
        let dimensions = (0..hosts).map(dimensions).collect();
        Self { hosts, metrics: (0..metrics).map(metric).collect(), steps, begin, dimensions }
    }

    /// A gauge.
    pub fn gauge(&self) -> &str {
        &self.metrics[0].0
    }

    /// A counter.
    pub fn counter(&self) -> &str {
        &self.metrics[3].0
    }

    /// One past the last sample's time.
    pub fn end(&self) -> i64 {
        self.begin + self.steps as i64 * STEP
    }

    /// Series.
    pub fn series(&self) -> usize {
        self.hosts * self.metrics.len()
    }

    /// Samples.
    pub fn rows(&self) -> usize {
        self.series() * self.steps
    }

    /// A machine's dimensions, sorted by key.
    pub fn dimensions(&self, host: usize) -> &[(&'static str, String)] {
        &self.dimensions[host]
    }

    /// The keys of all machines' dimensions, sorted.
    pub fn keys(&self) -> Vec<&'static str> {
        self.dimensions[0].iter().map(|(key, _)| *key).collect()
    }

    /// A number for a series, as scattered as real ones.
    pub fn fingerprint(&self, metric: usize, host: usize) -> u64 {
        xxh3_64(&((metric * self.hosts + host) as u64).to_le_bytes())
    }

    /// Calls `each` with all samples, so many series' steps at a time that a call has `rows` or more.
    pub fn each_block(&self, rows: usize, mut each: impl FnMut(&[Row])) {
        let mut rng = Rng::with_seed(4);
        let shapes = self.metrics.iter().flat_map(|(_, shape)| (0..self.hosts).map(|_| *shape));
        let mut values: Vec<Values> = shapes.map(|shape| Values::new(shape, &mut rng)).collect();
        let mut block = Vec::with_capacity(rows + self.series());
        for step in 0..self.steps {
            let time = self.begin + step as i64 * STEP;
            for (series, values) in values.iter_mut().enumerate() {
                let (metric, host) = (series / self.hosts, series % self.hosts);
                block.push(Row { metric, host, time, value: values.next(&mut rng) });
            }
            if block.len() >= rows || step + 1 == self.steps {
                each(&block);
                block.clear();
            }
        }
    }
}
