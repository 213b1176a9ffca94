//! Networks: `IP` or `IP/BITS`, and sets of them.

use std::collections::HashSet;
use std::net::IpAddr;
use std::str::FromStr;

/// All addresses that begin with the same bits. An IPv4 address in IPv6 clothes is taken for the IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    /// What lies behind the bits is zero.
    start: IpAddr,
    bits: u8,
}

/// Neither an address nor a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no IP or CIDR")]
pub struct InvalidNetwork;

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let text = text.trim();
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let full = width(written);
        let bits = match bits {
            None => full,
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= full).ok_or(InvalidNetwork)?
            }
            Some(_) => return Err(InvalidNetwork),
        };
        let ip = written.to_canonical();
        if ip.is_ipv4() == written.is_ipv4() {
            return Ok(Self::new(ip, bits));
        }
        // Fewer bits would name more than the IPv4 addresses.
        Ok(Self::new(ip, bits.checked_sub(96).ok_or(InvalidNetwork)?))
    }
}

impl Network {
    fn new(ip: IpAddr, bits: u8) -> Self {
        let start = match ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4((ip.to_bits() & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6((ip.to_bits() & mask).into())
            }
        };
        Self { start, bits }
    }

    /// Whether the address lies in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.start.is_ipv4() && Self::new(ip, self.bits) == *self
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// Many networks; a look-up costs one probe for each length that occurs, however many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    all: HashSet<Network>,
    lengths: Vec<u8>,
}

impl Networks {
    /// Whether the address lies in one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let width = width(ip);
        let lengths = self.lengths.iter().filter(|bits| **bits <= width);
        lengths.into_iter().any(|bits| self.all.contains(&Network::new(ip, *bits)))
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<T: IntoIterator<Item = Network>>(networks: T) -> Self {
        let all: HashSet<_> = networks.into_iter().collect();
        let mut lengths: Vec<_> = all.iter().map(|network| network.bits).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self { all, lengths }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn texts_that_are_none() {
        for text in
            ["", "1.2.3", "1.2.3.4/33", "1.2.3.4/+3", "1.2.3.4/", "::1/129", "::ffff:1.2.3.4/95", "a/8"]
        {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork), "{text}");
        }
    }

    #[test]
    fn what_lies_in_them() {
        for (text, inside, outside) in [
            ("10.1.2.3/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
            (" 10.0.0.0/8 ", "::ffff:10.0.0.1", "::10.0.0.1"),
        ] {
            let set: Networks = [network(text), network("203.0.113.0/24")].into_iter().collect();
            for (ip, expected) in [(inside, true), (outside, false)] {
                let ip: IpAddr = ip.parse().unwrap();
                assert_eq!(network(text).contains(ip), expected, "{text} {ip}");
                assert_eq!(set.contains(ip), expected, "{text} {ip}");
            }
        }
        assert!(!Networks::default().contains("1.2.3.4".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn a_set_is_what_its_parts_are(
            parts in prop::collection::vec((any::<u32>(), 0..=32_u8), 0..20),
            ip in any::<u32>(),
            bits in 0..=32_u8,
        ) {
            // Addresses near one of the parts are the interesting ones.
            let ip = parts.first().map_or(ip, |(start, _)| start ^ ip.checked_shr(bits.into()).unwrap_or(0));
            let ip = IpAddr::V4(ip.into());
            let parts: Vec<_> = parts.into_iter().map(|(start, bits)| Network::new(IpAddr::V4(start.into()), bits)).collect();
            let set: Networks = parts.iter().copied().collect();
            prop_assert_eq!(set.contains(ip), parts.iter().any(|part| part.contains(ip)));
        }
    }
}
