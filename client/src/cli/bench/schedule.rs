//! The open loop: operations are due at fixed moments, whatever became of the earlier ones.
//!
//! A thread of its own says which are due, since timers of the runtime are exact to a millisecond only. What is due
//! waits in a queue until a client is free; latencies count from the moment at which it was due.

use std::{sync::Arc, thread, time::Duration};

use tokio::sync::{Mutex, mpsc};

use super::window::Window;

/// The longest that the thread sleeps before it looks again whether the round has ended.
const NAP: Duration = Duration::from_millis(20);

/// When operations are due. Times are nanoseconds since the round began.
#[derive(Debug, Clone)]
struct Schedule {
    rate: u64,
    next: u64,
}

impl Schedule {
    fn new(rate: u64) -> Self {
        Self { rate, next: 0 }
    }

    /// When the next one is due.
    fn next_due(&self) -> u64 {
        let nanos = u128::from(self.next) * 1_000_000_000 / u128::from(self.rate);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// The next one, if it is due by now.
    fn due(&mut self, now: u64) -> Option<u64> {
        let due = self.next_due();
        (due <= now).then(|| {
            self.next += 1;
            due
        })
    }
}

/// What is due, for whichever client is free first.
pub(super) struct Queue(Mutex<mpsc::UnboundedReceiver<u64>>);

impl Queue {
    /// Starts the schedule; it ends with the round.
    pub(super) fn start(rate: u64, window: Arc<Window>) -> Self {
        // Bounded by the rate and the length of the round.
        let (sender, receiver) = mpsc::unbounded_channel();
        thread::spawn(move || {
            let mut schedule = Schedule::new(rate);
            loop {
                let (now, end) = (window.now(), window.end());
                // Not what is due with the end itself.
                while let Some(due) = schedule.due(now.min(end.saturating_sub(1))) {
                    if sender.send(due).is_err() {
                        return;
                    }
                }
                if now >= end {
                    return;
                }
                let until = schedule.next_due().saturating_sub(window.now());
                thread::sleep(Duration::from_nanos(until).min(NAP));
            }
        });
        Self(Mutex::new(receiver))
    }

    /// When the next operation was due; none: the round has ended, and nothing waits any more.
    pub(super) async fn next(&self) -> Option<u64> {
        self.0.lock().await.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_due_at_the_rate() {
        let mut schedule = Schedule::new(3);
        let due: Vec<_> = std::iter::from_fn(|| schedule.due(1_000_000_000)).collect();
        assert_eq!(due, [0, 333_333_333, 666_666_666, 1_000_000_000]);
        assert_eq!(schedule.next_due(), 1_333_333_333);
    }

    #[test]
    fn a_stall_shifts_nothing_and_loses_nothing() {
        let mut schedule = Schedule::new(1_000);
        assert_eq!(schedule.due(0), Some(0));
        assert_eq!(schedule.due(999_999), None, "the second is due after a millisecond");
        // Nobody looked for half a second.
        let late: Vec<_> = std::iter::from_fn(|| schedule.due(500_000_000)).collect();
        assert_eq!(late.len(), 500);
        assert_eq!(
            (late[0], late[499]),
            (1_000_000, 500_000_000),
            "each keeps the moment at which it was due"
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_queue_brings_everything_that_was_due_and_then_ends() {
        let window = Arc::new(Window::starting_now(Duration::ZERO, Duration::from_millis(100)));
        let queue = Queue::start(10_000, Arc::clone(&window));
        // A client that begins late finds what has waited.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let mut count = 0;
        let mut last = None;
        while let Some(due) = queue.next().await {
            assert!(last < Some(due) && due < window.end());
            last = Some(due);
            count += 1;
        }
        assert_eq!(count, 1_000, "all that were due from the first moment to the last");
    }
}
