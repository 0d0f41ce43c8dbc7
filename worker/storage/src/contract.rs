//! The contract: one suite of small cases that every implementation and every wrapper passes.
//!
//! # To run it over a backend
//! Implement [`Subject`] (a store that can be settled and restarted) and [`Backend`] (what opens a
//! fresh one), and write in that backend's tests
//! ```ignore
//! crate::contract_tests!(MyBackend);
//! ```
//! Each case becomes three tests by its name: `plain`, `settled` and `restarted` ([`Mode`]), so that
//! every rule is also shown for samples that have moved inside the store.
//!
//! # To add a case
//! Write an `async fn` in the file of its subject, with its expected answer inline, and add its name to
//! the list in [`each_contract_case`](crate::each_contract_case); [`trial::Trial`] says how answers are
//! written down as text.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a test suite as a library")]

mod aggregates;
mod bounds;
mod cardinality;
mod deletes;
mod exports;
mod integrals;
mod limits;
mod listings;
mod operations;
mod ranges;
mod rates;
mod retention;
mod tenants;
pub mod trial;
mod writes;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::ManualClock;
use crate::store::{MetricsStore, Result};

use trial::Trial;

/// A store under test, and what may happen to it between two calls without changing an answer.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The store; nothing keeps it over a restart.
    fn store(&self) -> &dyn MetricsStore;

    /// Moves samples on through the inside of the store: seals, merges, flushes, waits for parts.
    ///
    /// # Errors
    /// What the store says; the case has failed then.
    async fn settle(&mut self) -> Result<()>;

    /// Closes the store and opens it again from what is durable, with the same clock.
    ///
    /// # Errors
    /// What the store says; the case has failed then.
    async fn restart(&mut self) -> Result<()>;
}

/// What opens fresh, empty stores.
#[async_trait]
pub trait Backend: Send + Sync {
    /// An empty store on `clock`, whose tenants keep samples for `default_retention` milliseconds.
    ///
    /// # Errors
    /// What the store says; the case has failed then.
    async fn open(&self, clock: Arc<ManualClock>, default_retention: i64) -> Result<Box<dyn Subject>>;
}

/// What is done to the store after every change that a case makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Plain,
    /// [`Subject::settle`].
    Settled,
    /// [`Subject::restart`].
    Restarted,
}

type Body = for<'a> fn(&'a mut Trial) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One rule of the contract.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it says, as a name.
    pub name: &'static str,
    body: Body,
}

impl fmt::Debug for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

impl Case {
    /// Runs the case over a fresh store of `backend`.
    ///
    /// # Panics
    /// When the store breaks the rule.
    pub async fn run(&self, backend: &dyn Backend, mode: Mode) {
        let mut trial = Trial::open(backend, mode).await;
        (self.body)(&mut trial).await;
    }
}

/// Every case.
#[must_use]
pub fn cases() -> &'static [Case] {
    CASES
}

/// Runs the case called `name` over a fresh store of `backend`, on a runtime of its own.
///
/// # Panics
/// When there is no such case, or the store breaks its rule.
pub fn run_case(name: &str, backend: &dyn Backend, mode: Mode) {
    let case = CASES.iter().find(|case| case.name == name).expect("a case of this name");
    // One place for all cases: a runtime entered in each of a thousand tests takes minutes to compile.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(case.run(backend, mode));
}

/// Gives `$then!` the list of all cases, behind `$arguments`.
#[macro_export]
macro_rules! each_contract_case {
    ($then:ident! $($arguments:tt)*) => {
        $then! { { $($arguments)* }
            writes {
                a_written_sample_is_read_back,
                the_later_of_two_rows_in_a_batch_wins,
                the_later_of_two_batches_wins,
                a_rewrite_wins_over_settled_samples,
                a_late_sample_takes_its_place,
                writing_a_batch_again_changes_nothing,
                a_series_may_have_no_dimensions,
                dimensions_name_a_series_in_any_order,
                a_known_series_is_written_by_its_handle,
                a_spelling_belongs_to_one_tenant,
                a_stale_handle_stores_nothing,
                an_empty_batch_is_accepted,
                values_come_back_bit_by_bit,
                times_before_the_epoch_are_times,
                many_samples_of_one_series,
                one_sample_of_many_series,
                values_may_be_long_and_of_any_script,
                a_restart_keeps_everything,
            }
            ranges {
                rows_come_by_time_then_series,
                series_compare_pair_by_pair,
                a_range_is_half_open,
                a_limit_keeps_the_first_rows,
                a_limit_that_cuts_nothing_is_not_truncation,
                samples_out_of_bounds_are_no_rows,
                what_was_written_over_is_out_of_bounds_too,
                all_filters_must_hold,
                one_of_a_list_must_hold,
                lists_hold_for_every_kind_of_question,
                what_does_not_exist_is_empty,
                series_matched_have_a_sample_in_range,
            }
            exports {
                an_export_goes_series_by_series,
                an_export_has_each_sample_once_in_its_last_version,
                an_export_reaches_over_days_and_many_series,
                an_export_shows_nothing_deleted_or_expired_or_of_others,
                an_export_brings_pieces_of_bounded_size,
            }
            aggregates {
                each_aggregation_over_all_samples,
                buckets_are_aligned_to_the_epoch,
                an_empty_bucket_has_no_row,
                groups_come_in_byte_order_absent_first,
                groups_follow_the_order_of_the_keys,
                grouping_by_an_unknown_key_is_one_group,
                no_sample_no_row,
                groups_then_times_up_to_the_limit,
                an_overflow_is_not_finite,
                a_duplicate_counts_once,
                whole_hours_and_parts_of_hours,
                hours_with_late_samples_and_rewrites,
                extremes_keep_their_signs,
                a_percentile_of_one_sample_is_that_sample,
                a_percentile_lies_between_closest_ranks,
                a_percentile_spans_the_series_of_a_group,
                percentiles_per_bucket,
                percentiles_over_many_samples,
                rows_out_of_bounds_are_left_out_before_the_limit_counts,
                bounds_are_of_each_bucket,
                what_overflowed_is_within_no_bound,
            }
            integrals {
                an_integral_is_value_times_seconds,
                an_integral_of_one_sample_is_zero,
                a_segment_is_split_at_the_edges_of_buckets,
                a_bucket_that_is_crossed_has_a_row_with_count_0,
                a_segment_that_ends_on_an_edge_leaves_nothing_behind_it,
                a_segment_over_max_gap_counts_nothing,
                a_segment_over_max_gap_makes_no_row,
                a_segment_needs_both_samples_in_range,
                integrals_add_up_over_series_and_buckets,
                integrals_over_whole_hours,
            }
            rates {
                a_rate_is_the_increase_per_second,
                bounds_are_of_the_rate,
                a_reset_counts_the_new_value,
                the_carry_in_begins_the_first_step,
                a_carry_in_is_at_most_one_interval_old,
                the_last_of_several_carry_ins_counts,
                a_step_belongs_to_the_bucket_of_its_later_sample,
                a_bucket_without_a_step_has_no_row,
                a_cut_bucket_is_divided_by_the_whole_interval,
                rates_add_up_over_the_series_of_a_group,
                a_constant_counter_has_rate_0,
                a_carry_in_alone_matches_no_series,
                rates_over_whole_hours,
            }
            listings {
                metrics_are_sorted_by_bytes,
                a_listing_has_a_prefix_a_limit_and_a_cursor,
                a_cursor_need_not_be_a_name,
                keys_and_values_of_a_metric,
                listings_of_what_does_not_exist_are_empty,
            }
            cardinality {
                the_largest_metric_comes_first,
                keys_and_values_of_one_metric,
                pages_go_through_rows_of_equal_count,
                a_prefix_keeps_names,
                an_unknown_metric_has_no_rows,
            }
            tenants {
                equal_names_of_two_tenants_are_apart,
                names_that_begin_alike_are_apart,
                a_delete_touches_one_tenant,
                retention_belongs_to_one_tenant,
                limits_count_one_tenant,
                an_unknown_tenant_has_nothing,
            }
            deletes {
                a_delete_takes_everything_before,
                a_delete_without_a_time_takes_all,
                a_dry_run_only_counts,
                a_delete_touches_one_metric,
                a_delete_of_the_unknown_counts_nothing,
                samples_written_after_a_delete_stay,
                a_delete_inside_a_day_keeps_presence,
                a_delete_of_a_whole_day_ends_presence,
                a_deleted_carry_in_begins_no_step,
                a_delete_inside_an_hour_is_exact,
                a_delete_counts_a_duplicate_once,
                a_second_delete_does_not_undo_the_first,
            }
            retention {
                the_default_is_reported_until_it_is_set,
                a_sample_expires_to_the_millisecond,
                a_metric_may_have_its_own,
                setting_replaces_all,
                presence_expires_with_the_whole_day,
                an_expired_series_counts_as_new,
                a_sample_that_has_expired_leaves_nothing,
                an_expired_carry_in_begins_no_step,
                a_delete_counts_only_what_has_not_expired,
                a_delete_takes_what_has_expired,
            }
            limits {
                series_over_the_limit_are_refused_row_by_row,
                metrics_over_the_limit_are_refused_row_by_row,
                known_series_go_on_at_the_limit,
                a_refused_row_leaves_nothing,
                series_are_counted_per_metric,
                deleted_series_make_room,
                a_described_series_may_be_known,
            }
            bounds {
                a_cancelled_query_stops,
                a_query_past_its_deadline_stops,
                a_query_may_scan_so_many_samples,
                a_query_may_hold_so_much,
                a_query_counts_what_it_scans,
                a_closed_store_is_unavailable,
            }
            operations {
                usage_counts_what_is_held,
                usage_counts_what_was_accepted_today,
                usage_of_a_tenant_without_samples_is_zero,
                a_plan_names_the_series_that_match,
                a_working_store_is_healthy,
            }
        }
    };
}

macro_rules! list_of_cases {
    ({} $($module:ident { $($name:ident,)* })*) => {
        const CASES: &[Case] = &[$($(
            Case { name: stringify!($name), body: |trial| Box::pin($module::$name(trial)) },
        )*)*];
    };
}
each_contract_case!(list_of_cases!);

/// One test per case and mode over the backend that an expression opens; for a `mod tests`.
#[macro_export]
macro_rules! contract_tests {
    ($backend:expr) => {
        $crate::contract_tests!(plain: $crate::contract::Mode::Plain, $backend);
        $crate::contract_tests!(settled: $crate::contract::Mode::Settled, $backend);
        $crate::contract_tests!(restarted: $crate::contract::Mode::Restarted, $backend);
    };
    ($module:ident: $mode:expr, $backend:expr) => {
        mod $module {
            #[allow(unused_imports, reason = "the backend may be named by a path")]
            use super::*;
            use $crate::{contract_test_functions, each_contract_case};
            each_contract_case!(contract_test_functions! $mode, $backend);
        }
    };
}

/// The body of [`contract_tests`].
#[macro_export]
macro_rules! contract_test_functions {
    ({ $mode:expr, $backend:expr } $($module:ident { $($name:ident,)* })*) => {
        $(mod $module {
            #[allow(unused_imports, reason = "the backend may be named by a path")]
            use super::*;
            $(
                #[test]
                fn $name() {
                    $crate::contract::run_case(stringify!($name), &$backend, $mode);
                }
            )*
        })*
    };
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_of_cases_are_distinct() {
        let names: HashSet<_> = cases().iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases().len());
    }
}
