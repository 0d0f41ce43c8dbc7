//! How much of the log is still needed.

use std::collections::VecDeque;

/// Commits are told apart in steps of this many bytes: enough for a cap of hundreds of megabytes.
const STEP: u64 = 64 << 10;

/// Counts the bytes of commits that are not released yet.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    total: u64,
    released: u64,
    last_commit: u64,
    /// (commit, bytes through it), at least one step apart.
    marks: VecDeque<(u64, u64)>,
}

impl Backlog {
    /// Counts a record.
    pub(super) fn add(&mut self, commit: u64, bytes: u64) {
        self.total += bytes;
        self.last_commit = commit;
        let before = self.marks.back().map_or(self.released, |(_, total)| *total);
        if self.total - before >= STEP {
            self.marks.push_back((commit, self.total));
        }
    }

    /// Forgets all commits up to `through`.
    pub(super) fn release(&mut self, through: u64) {
        if through >= self.last_commit {
            self.released = self.total;
            self.marks.clear();
            return;
        }
        let passed = self.marks.partition_point(|(commit, _)| *commit <= through);
        if let Some((_, total)) = self.marks.drain(..passed).next_back() {
            self.released = total;
        }
    }

    /// Bytes not released, to within a step.
    pub(super) fn bytes(&self) -> u64 {
        self.total - self.released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_known_to_within_a_step() {
        let mut backlog = Backlog::default();
        let mut bytes = Vec::new();
        let mut random = fastrand::Rng::with_seed(3);
        for commit in 1..=5000 {
            bytes.push(random.u64(40..3000));
            backlog.add(commit, bytes[bytes.len() - 1]);
        }
        for through in (0..5000).step_by(170) {
            backlog.release(through);
            let exact: u64 = bytes[usize::try_from(through).unwrap()..].iter().sum();
            assert!((exact..exact + STEP + 3000).contains(&backlog.bytes()), "{through}");
        }
        backlog.release(5000);
        assert_eq!(backlog.bytes(), 0);
        backlog.add(5001, 100);
        assert_eq!(backlog.bytes(), 100);
    }
}
