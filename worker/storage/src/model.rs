//! The domain's values, each valid by construction: below this module nothing checks a name again.

mod batch;
mod having;
mod name;
mod query;
mod series;

pub use batch::{Batch, NewSeries, RowSeries, SeriesHandle, SeriesLimits, Spelling, SpellingHasher};
pub use having::Having;
pub use name::{DimensionKey, InvalidName, MAX_KEY_CHARS, MAX_METRIC_CHARS, MetricName, Tenant};
pub use query::{
    AggregateQuery, AggregateRow, Aggregation, Answer, ExportQuery, GroupKey, Query, QueryStats, RangeQuery,
    RangeRow, RateQuery, RateRow, Selector, SeriesSamples, TimeRange, rate_interval,
};
pub use series::{DimensionLimits, Dimensions, InvalidDimensions};
