//! Who shares a limit with whom.

use std::net::IpAddr;

/// A neighbour as limits see it: one IPv4 address, or one /64 of IPv6, because a host has a whole one to choose addresses from (RFC 4291, 2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Neighbour(IpAddr);

impl From<IpAddr> for Neighbour {
    fn from(address: IpAddr) -> Neighbour {
        Neighbour(match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                let [a, b, c, d, ..] = v6.segments();
                [a, b, c, d, 0, 0, 0, 0].into()
            }
            one => one,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_neighbour_of_its_own_and_a_network_of_ipv6_is_one_too() {
        let of = |text: &str| Neighbour::from(text.parse::<IpAddr>().unwrap());
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("::1"), of("::2"));
    }
}
