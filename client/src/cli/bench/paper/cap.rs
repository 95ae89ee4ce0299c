//! A share of CPU for each node, by cgroups of the kernel: version 2 (`cpu.max`) or version 1 (`cpu.cfs_quota_us`).
//!
//! Makes groups of its own below the one this process is in, or below the root; changes no other group, and removes its
//! own in the end.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};

/// The time in which a share is given, in microseconds: short, so that a node never rests for long.
const PERIOD_US: u32 = 10_000;
/// The least share, in percent of a core: the kernel gives no less than a millisecond.
pub(super) const PERCENT_MIN: u32 = 10;
const MOUNTS: &str = "/proc/self/mounts";
const OWN_GROUPS: &str = "/proc/self/cgroup";
/// How often a group is tried to be removed; a process that has just ended may still be in it.
const ATTEMPTS: u32 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    One,
    Two,
}

impl Kind {
    /// The file that is there if CPU can be limited.
    fn limit(self) -> &'static str {
        match self {
            Self::One => "cpu.cfs_quota_us",
            Self::Two => "cpu.max",
        }
    }
}

/// Where groups can be made.
#[derive(Debug)]
pub(super) struct Cap {
    kind: Kind,
    directory: PathBuf,
    percent: u32,
    groups: Vec<PathBuf>,
}

impl Cap {
    /// Finds out whether groups can be made; if not, why.
    pub(super) fn prepare(percent: u32) -> anyhow::Result<Self> {
        let mounts = fs::read_to_string(MOUNTS).context("cgroups need Linux")?;
        let own = fs::read_to_string(OWN_GROUPS).context("cgroups need Linux")?;
        let mut reasons = Vec::new();
        for (kind, parent) in places(&mounts, &own) {
            let directory = parent.join(format!("craq-bench-{}", uuid::Uuid::new_v4().simple()));
            if let Err(error) = fs::create_dir(&directory) {
                reasons.push(format!("{}: {error}", parent.display()));
                continue;
            }
            let cap = Self { kind, directory, percent, groups: vec![] };
            if cap.directory.join(kind.limit()).exists() && cap.enable() {
                return Ok(cap);
            }
            reasons.push(format!("{}: the controller `cpu` is not handed down", parent.display()));
        }
        bail!(
            "each node needs its own share of CPU, or more nodes would not read faster on one machine, and no cgroup can be \
             made here; run it as root ({})",
            if reasons.is_empty() { "no cgroups are mounted".to_owned() } else { reasons.join("; ") }
        )
    }

    /// Version 2: groups below get the controller only if it is asked for.
    fn enable(&self) -> bool {
        self.kind == Kind::One || fs::write(self.directory.join("cgroup.subtree_control"), "+cpu").is_ok()
    }

    /// Puts a process into a group of its own.
    pub(super) fn put(&mut self, name: &str, pid: u32) -> anyhow::Result<()> {
        let group = self.directory.join(name);
        fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
        self.groups.push(group.clone());
        let quota = self.percent * (PERIOD_US / 100);
        let settings = match self.kind {
            Kind::One => {
                vec![("cpu.cfs_period_us", PERIOD_US.to_string()), ("cpu.cfs_quota_us", quota.to_string())]
            }
            Kind::Two => vec![("cpu.max", format!("{quota} {PERIOD_US}"))],
        };
        for (file, text) in settings.into_iter().chain([("cgroup.procs", pid.to_string())]) {
            let file = group.join(file);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    /// Removes the groups of processes that have ended.
    pub(super) fn clear(&mut self) {
        for group in self.groups.drain(..) {
            remove(&group);
        }
    }
}

impl Drop for Cap {
    fn drop(&mut self) {
        self.clear();
        remove(&self.directory);
    }
}

fn remove(group: &Path) {
    for _ in 0..ATTEMPTS {
        if fs::remove_dir(group).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    eprintln!("cannot remove {}", group.display());
}

/// Where a group may be possible: below this process's own, then below the root, of each hierarchy that has `cpu`.
fn places(mounts: &str, own: &str) -> Vec<(Kind, PathBuf)> {
    let mut places = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, mount, system, options, ..] = fields[..] else { continue };
        let kind = match system {
            "cgroup2" => Kind::Two,
            "cgroup" if options.split(',').any(|option| option == "cpu") => Kind::One,
            _ => continue,
        };
        let mount = PathBuf::from(mount);
        let below = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let is_it = match kind {
                Kind::Two => number == "0" && controllers.is_empty(),
                Kind::One => controllers.split(',').any(|name| name == "cpu"),
            };
            is_it.then(|| path.trim_start_matches('/'))
        });
        if let Some(below) = below.filter(|below| !below.is_empty()) {
            places.push((kind, mount.join(below)));
        }
        places.push((kind, mount));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_looked_for_where_cpu_is_shared_out() {
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\nproc /proc proc rw 0 0\n";
        assert_eq!(
            places(unified, "0::/user.slice/me.scope\n"),
            [(Kind::Two, "/sys/fs/cgroup/user.slice/me.scope".into()), (Kind::Two, "/sys/fs/cgroup".into())]
        );
        let legacy = "cgroup /cg/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup /cg/cpuset cgroup rw,cpuset 0 0\n";
        assert_eq!(places(legacy, "3:cpuset:/x\n2:cpu,cpuacct:/\n"), [(Kind::One, "/cg/cpu".into())]);
        assert_eq!(places("proc /proc proc rw 0 0\n", "0::/\n"), []);
    }
}
