//! Addresses as people write them, made into addresses that can be connected to.
//!
//! Never resolves a name: that is done anew at each connection.

use std::net::Ipv6Addr;

use crate::Error;

/// `host:port` as it can be connected to.
///
/// `:1234` means `localhost:1234`; a leading `http://` is dropped. An address to listen on stands for the machine
/// itself too: `0.0.0.0:1234` and `[::]:1234` are connected to as `localhost:1234`.
pub(crate) fn dial(address: &str) -> Result<String, Error> {
    let trimmed = address.trim();
    let trimmed = trimmed.strip_prefix("http://").unwrap_or(trimmed).trim_end_matches('/');
    let bad =
        || Error::Invalid { message: format!("{address:?} is no address: host:port or :port is expected") };
    let (host, port) = trimmed.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_legal = match bracketed {
        Some(host) => host.parse::<Ipv6Addr>().is_ok(),
        None => host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    if port == 0 || !is_legal {
        return Err(bad());
    }
    let host = if matches!(host, "" | "0.0.0.0" | "[::]") { "localhost" } else { host };
    Ok(format!("{host}:{port}"))
}

/// The addresses of a list separated by commas; at least one.
pub(crate) fn dial_all<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>, Error> {
    let mut dialled = Vec::new();
    for address in
        addresses.into_iter().flat_map(|list| list.split(',')).filter(|part| !part.trim().is_empty())
    {
        let address = dial(address)?;
        if !dialled.contains(&address) {
            dialled.push(address);
        }
    }
    if dialled.is_empty() {
        return Err(Error::Invalid { message: "no address is given".to_owned() });
    }
    Ok(dialled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_means_this_machine() {
        assert_eq!(dial(":1234").unwrap(), "localhost:1234");
        assert_eq!(dial("0.0.0.0:1").unwrap(), "localhost:1");
        assert_eq!(dial("[::]:1").unwrap(), "localhost:1");
        assert_eq!(dial(" http://db-1.example:80/ ").unwrap(), "db-1.example:80");
        assert_eq!(dial("[::1]:80").unwrap(), "[::1]:80");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "host",
            "host:",
            "host:x",
            "host:70000",
            ":0",
            "a b:1",
            "a/b:1",
            "::1:80",
            "[::1]]:80",
            "[]:80",
        ] {
            assert!(dial(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_list_is_split_and_holds_each_once() {
        assert_eq!(dial_all([":1,b:2", "localhost:1"]).unwrap(), ["localhost:1", "b:2"]);
        assert!(dial_all(["", " , "]).is_err());
    }
}
