//! Client addresses, for limits and counts per client.

use std::net::IpAddr;

use axum::http::HeaderMap;

/// The part of an address that belongs to one customer, which with IPv6 is at least a /64. On an IPv6 socket,
/// connections by IPv4 count as IPv4.
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The client that a proxy names. The proxy appends the address that it saw to `X-Forwarded-For`, so the last part
/// cannot be forged.
pub fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_customer_of_ipv6_is_a_network_and_one_of_ipv4_an_address() {
        assert_eq!(neighbourhood(address("2001:db8:0:1:2::3")), address("2001:db8:0:1::"));
        assert_eq!(neighbourhood(address("192.0.2.1")), address("192.0.2.1"));
        assert_eq!(neighbourhood(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }

    #[test]
    fn only_what_the_last_proxy_saw_is_believed() {
        let told = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            forwarded_for(&headers)
        };
        assert_eq!(told(&[]), None);
        assert_eq!(told(&["6.6.6.6, 192.0.2.1"]), Some(address("192.0.2.1")));
        assert_eq!(told(&["192.0.2.1", "6.6.6.6, 2001:db8::1"]), Some(address("2001:db8::1")));
        assert_eq!(told(&["192.0.2.1, unknown"]), None);
    }
}
