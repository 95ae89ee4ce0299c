//! File descriptors: every connection takes one, and the store and the ways to other processes need some.

use std::num::NonZeroUsize;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::CONNECTIONS_MAX;

/// Descriptors that are kept for everything but accepted connections.
const KEPT: u64 = 256;

/// Raises the process's limit of open files to what the system allows, and brings the number of connections that fit:
/// [`CONNECTIONS_MAX`], or fewer, which is then logged.
pub(crate) fn make_room() -> NonZeroUsize {
    let mut limit = getrlimit(Resource::Nofile);
    let soft = limit.current;
    limit.current = limit.maximum;
    let open_max = if setrlimit(Resource::Nofile, limit).is_ok() { limit.maximum } else { soft };
    let connections = fitting(open_max);
    if connections.get() < CONNECTIONS_MAX {
        tracing::info!(
            open_files_max = open_max,
            connections_max = connections,
            "fewer connections than usual"
        );
    }
    connections
}

/// How many connections fit into so many open files; none: there is no limit.
fn fitting(open_max: Option<u64>) -> NonZeroUsize {
    let rest = open_max.map_or(u64::MAX, |open_max| open_max.saturating_sub(KEPT).max(open_max / 2));
    let connections = usize::try_from(rest).unwrap_or(usize::MAX).min(CONNECTIONS_MAX);
    NonZeroUsize::new(connections).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        let fitting = |open_max| fitting(open_max).get();
        assert_eq!(fitting(None), CONNECTIONS_MAX);
        assert_eq!(fitting(Some(1_000_000)), CONNECTIONS_MAX);
        assert_eq!(fitting(Some(1_024)), 768);
        assert_eq!(fitting(Some(64)), 32);
        assert_eq!(fitting(Some(0)), 1);
    }
}
