//! How urgent a thread is to the kernel, where more of them want to work than there are cores.

#![allow(unsafe_code, reason = "sched_setattr(2) has no safe wrapper; nothing else is called here")]

use std::io;
use std::time::Duration;

use nix::libc;

/// How long a thread that gives way works at a time, once it is its turn: the longest that Linux allows.
///
/// It isn't how much it gets, which is its niceness's part, but how late: a thread that asks for long turns has late
/// deadlines, so whoever wakes with a turn of the usual length, some milliseconds, takes the core from it at once
/// instead of after its turn (earliest eligible virtual deadline first, Linux 6.12; before, niceness alone counts).
const TURN: Duration = Duration::from_millis(100);

/// Makes the calling thread give way: nicer by `niceness`, and last to be due. No right is needed for either; where the
/// system refuses, the thread stays as urgent as the others.
pub(super) fn give_way(niceness: i32) {
    if let Err(error) = rustix::process::nice(niceness).map_err(io::Error::from).and_then(take_long_turns) {
        tracing::debug!(%error, niceness, "a thread stays as urgent as the others");
    }
}

/// Asks for long turns, of a thread that is `nice`.
fn take_long_turns(nice: i32) -> io::Result<()> {
    let attributes = libc::sched_attr {
        sched_flags: libc::SCHED_FLAG_KEEP_POLICY as u64,
        sched_nice: nice,
        sched_runtime: TURN.as_nanos() as u64,
        ..unset()
    };
    // SAFETY: the attributes outlive the call, which reads as many bytes of them as they say they have.
    let returned = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn unset() -> libc::sched_attr {
    libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    }
}

/// How nice the calling thread is, and how long its turns are, as far as the kernel tells.
#[cfg(test)]
pub(super) fn of_this_thread() -> (i32, Duration) {
    let mut attributes = unset();
    // SAFETY: the attributes outlive the call, which writes no more bytes of them than it is told they have.
    let returned = unsafe {
        libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size_of::<libc::sched_attr>(), 0)
    };
    assert_eq!(returned, 0, "{}", io::Error::last_os_error());
    (attributes.sched_nice, Duration::from_nanos(attributes.sched_runtime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_give_way_are_nicer_and_due_late() {
        let of_a_new_thread = |niceness| {
            let told = move || {
                give_way(niceness);
                of_this_thread()
            };
            std::thread::spawn(told).join().unwrap()
        };
        let (own, usual) = of_this_thread();
        let (nice, turn) = of_a_new_thread(3);
        assert_eq!(nice, (own + 3).min(19));
        // Before Linux 6.12 there are no turns to ask for, and none are told.
        assert!(turn == TURN || usual.is_zero() && turn.is_zero(), "{turn:?}, usually {usual:?}");
    }
}
