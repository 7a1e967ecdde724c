//! Proxies whose word about who sent a request is taken.

use std::net::IpAddr;

/// Addresses and networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct TrustedProxies(Vec<Network>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: u128,
    /// Of the 128 bits that an address has, IPv4 mapped into them.
    mask: u128,
}

impl TrustedProxies {
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        self.0.iter().any(|net| bits & net.mask == net.address)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl TryFrom<Vec<String>> for TrustedProxies {
    type Error = String;

    fn try_from(named: Vec<String>) -> Result<TrustedProxies, String> {
        let network = |text: &String| {
            let (address, length) = match text.split_once('/') {
                Some((address, length)) => (address, Some(length)),
                None => (text.as_str(), None),
            };
            let address: IpAddr = address.parse().ok()?;
            let width: u32 = if address.is_ipv4() { 32 } else { 128 };
            let length = match length {
                Some(length) => length.parse().ok().filter(|length| *length <= width)?,
                None => width,
            };
            let mask = u128::MAX.checked_shl(width - length).unwrap_or(0);
            let mask = match address {
                // Above it all bits count: they say that it is IPv4.
                IpAddr::V4(_) => mask | !u128::from(u32::MAX),
                IpAddr::V6(_) => mask,
            };
            Some(Network {
                address: bits(address) & mask,
                mask,
            })
        };
        let all = named.iter().map(|text| {
            network(text).ok_or_else(|| {
                format!("{text:?} is no address or network such as 10.0.0.7, 10.0.0.0/8 or 2001:db8::/32")
            })
        });
        all.collect::<Result<_, _>>().map(TrustedProxies)
    }
}
