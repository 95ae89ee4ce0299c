//! What the machine was busy with: this process's CPU time, and the host's. Known on Linux only.

use serde::Serialize;

/// Use of CPU over a time. The names of the fields are a contract.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Use {
    /// Cores that this process kept busy.
    pub(super) client_cores: f64,
    /// The share of all cores' time in which anybody ran.
    pub(super) host_busy_percent: f64,
    /// The share that the hypervisor gave to others.
    pub(super) host_stolen_percent: f64,
}

/// CPU time spent so far, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticks {
    own: u64,
    busy: u64,
    stolen: u64,
    all: u64,
    cores: u64,
}

impl Ticks {
    /// As the kernel counts them; none where it doesn't tell.
    #[cfg(target_os = "linux")]
    pub(super) fn now() -> Option<Self> {
        use procfs::CurrentSI as _;
        let own = procfs::process::Process::myself().ok()?.stat().ok()?;
        let kernel = procfs::KernelStats::current().ok()?;
        let host = kernel.total;
        let stolen = host.steal.unwrap_or_default();
        let working = host.user + host.nice + host.system;
        let busy = working + host.irq.unwrap_or_default() + host.softirq.unwrap_or_default() + stolen;
        Some(Self {
            own: own.utime + own.stime,
            busy,
            stolen,
            all: busy + host.idle + host.iowait.unwrap_or_default(),
            cores: kernel.cpu_time.len() as u64,
        })
    }

    /// Nobody tells.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn now() -> Option<Self> {
        None
    }

    /// What was used since; none if no tick has passed.
    pub(super) fn since(self, before: Self) -> Option<Use> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        let share = |now: u64, before: u64| now.saturating_sub(before) as f64 / all as f64;
        let rounded = |number: f64, digits: i32| (number * 10f64.powi(digits)).round() / 10f64.powi(digits);
        Some(Use {
            client_cores: rounded(share(self.own, before.own) * self.cores as f64, 2),
            host_busy_percent: rounded(share(self.busy, before.busy) * 100.0, 1),
            host_stolen_percent: rounded(share(self.stolen, before.stolen) * 100.0, 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_time_of_all_cores() {
        let before = Ticks { own: 10, busy: 100, stolen: 5, all: 1_000, cores: 4 };
        let after = Ticks { own: 60, busy: 300, stolen: 25, all: 1_400, cores: 4 };
        let used = Use { client_cores: 0.5, host_busy_percent: 50.0, host_stolen_percent: 5.0 };
        assert_eq!(after.since(before), Some(used));
        assert_eq!(before.since(before), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells() {
        let ticks = Ticks::now().unwrap();
        assert!(ticks.all >= ticks.busy && ticks.busy > 0 && ticks.cores > 0, "{ticks:?}");
    }
}
