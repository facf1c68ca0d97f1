//! The door for people and programs: by which names it is known, whose word about a client's address counts, and its TLS.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// `[http]`, but for who may do what (`access`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpPlan {
    /// Names of this gateway, beside localhost.
    pub names: Vec<String>,
    /// Proxies whose word about a client's address counts.
    pub trusted_proxies: Vec<Network>,
    /// Certificate and key; without them it is served without TLS.
    pub tls: Option<HttpTls>,
    /// Without TLS, and not to this machine alone: somebody has wanted it so.
    pub is_unencrypted: bool,
}

/// Certificate and key of the door, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTls {
    /// Our certificate, with those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whether they are made here when they are not there.
    pub is_self_signed: bool,
}

/// An address, or a network of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Bits that count.
    prefix: u8,
}

impl FromStr for Network {
    type Err = &'static str;

    /// `10.0.0.7`, `10.0.0.0/8`, `fd00::/8`
    fn from_str(text: &str) -> Result<Network, Self::Err> {
        let expected = "expected an address or a network, as in \"127.0.0.1\" or \"10.0.0.0/8\"";
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| expected)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| expected)?;
        if prefix > bits {
            return Err("expected /0 to /32 for IPv4, /0 to /128 for IPv6");
        }
        Ok(Network { address, prefix })
    }
}

impl Network {
    /// Whether an address is in it.
    pub fn has(&self, other: IpAddr) -> bool {
        match (self.address, other.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32, self.prefix),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128, self.prefix),
            _ => false,
        }
    }
}

fn same(a: u128, b: u128, bits: u8, prefix: u8) -> bool {
    (a ^ b).checked_shr(u32::from(bits.saturating_sub(prefix))).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_addresses_and_no_others() {
        let rows = [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::1", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("::/0", "2001:db8::1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
        ];
        for (network, address, want) in rows {
            assert_eq!(network.parse::<Network>().unwrap().has(address.parse().unwrap()), want, "{network} {address}");
        }
        for wrong in ["", "proxy", "10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
