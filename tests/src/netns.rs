//! Machines on one machine: network namespaces on a bridge, any link of which can be cut, one way or both.
//!
//! Needs root and `ip` (package iproute2).

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// A bridge and the hosts on it, until it is dropped. This process is on the bridge too, as the host 254.
pub struct Network {
    name: String,
    subnet: u32,
    hosts: u32,
}

impl Network {
    /// Makes the network; `Err` says why this machine can't.
    pub fn new(hosts: u32) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let network = Self {
            name: format!("cq{:x}{number}", pid % 0xFFFF),
            subnet: (pid + number * 7) % 200 + 20,
            hosts,
        };
        let name = &network.name;
        ip(&format!("link add {name} type bridge"))?;
        ip(&format!("addr add {}/24 dev {name}", network.address(254)))?;
        ip(&format!("link set {name} up"))?;
        for host in 1..=hosts {
            let space = network.space(host);
            let (outer, inner) = (format!("{name}o{host}"), format!("{name}i{host}"));
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {outer} type veth peer name {inner}"))?;
            ip(&format!("link set {inner} netns {space}"))?;
            ip(&format!("link set {outer} master {name} up"))?;
            ip(&format!("-n {space} link set lo up"))?;
            ip(&format!("-n {space} addr add {}/24 dev {inner}", network.address(host)))?;
            ip(&format!("-n {space} link set {inner} up"))?;
        }
        Ok(network)
    }

    /// A host's address.
    #[must_use]
    pub fn address(&self, host: u32) -> String {
        format!("10.213.{}.{host}", self.subnet)
    }

    /// The command that starts a program on a host.
    #[must_use]
    pub fn prefix(&self, host: u32) -> Vec<String> {
        vec!["ip".into(), "netns".into(), "exec".into(), self.space(host)]
    }

    /// What `from` sends to `to` is lost from now on.
    pub fn cut_one_way(&self, from: u32, to: u32) {
        // The address is given to a card that nobody has.
        let address = self.address(to);
        let done = self.on(from, &format!("neigh replace {address} lladdr 02:00:00:00:00:99 nud permanent"));
        done.expect("a link can be cut");
    }

    /// Nothing passes between the two from now on.
    pub fn cut(&self, a: u32, b: u32) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// All links are whole again.
    pub fn heal(&self) {
        for from in (1..=self.hosts).chain([254]) {
            for to in (1..=self.hosts).chain([254]) {
                if from != to {
                    // It fails where nothing was cut and nothing was ever sent.
                    let _ = self.on(from, &format!("neigh del {}", self.address(to)));
                }
            }
        }
    }

    fn on(&self, host: u32, command: &str) -> Result<(), String> {
        if host == 254 {
            return ip(&format!("{command} dev {}", self.name));
        }
        ip(&format!("-n {} {command} dev {}i{host}", self.space(host), self.name))
    }

    fn space(&self, host: u32) -> String {
        format!("{}h{host}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 1..=self.hosts {
            let _ = ip(&format!("netns del {}", self.space(host)));
            let _ = ip(&format!("link del {}o{host}", self.name));
        }
        let _ = ip(&format!("link del {}", self.name));
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output();
    let output = output.map_err(|error| format!("`ip` cannot be run (package iproute2): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
