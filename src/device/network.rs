//! Identifies the device's network, so that what it last carried can be found again: by the hardware address of the
//! default route's gateway, which differs between access points' networks but stays the same on each return.

use std::fs;

/// A name for the network of the default route, if there is one.
pub fn current() -> Option<String> {
    // Through the process: a service with `ProcSubset=pid` sees nothing else of /proc.
    let routes = fs::read_to_string("/proc/self/net/route").ok()?;
    named(&routes, &fs::read_to_string("/proc/self/net/arp").unwrap_or_default())
}

/// The name, from the kernel's tables. A gateway without a hardware address (a modem's link) is named by interface and
/// address.
fn named(routes: &str, neighbours: &str) -> Option<String> {
    let default = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[interface, "00000000", gateway, _, _, _, metric, ..] = fields.as_slice() else { return None };
        Some((metric.parse::<u32>().ok()?, interface.to_owned(), gateway.to_owned()))
    };
    let (_, interface, gateway) = routes.lines().skip(1).filter_map(default).min()?;
    // The table shows it in the machine's byte order, unlike the address itself.
    let address = u32::from_str_radix(&gateway, 16).ok()?.to_ne_bytes();
    let address = std::net::Ipv4Addr::from(address).to_string();
    let hardware = neighbours.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[ip, _, _, hardware, _, device] = fields.as_slice() else { return None };
        (ip == address && device == interface && hardware != "00:00:00:00:00:00").then(|| hardware.to_owned())
    });
    Some(hardware.unwrap_or_else(|| format!("{interface} {address}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wwan0\t00000000\t0100000A\t0003\t0\t0\t700\t00000000\t0\t0\t0
wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
wlan0\t0000A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0
";
    const NEIGHBOURS: &str = "\
IP address       HW type     Flags       HW address            Mask     Device
192.168.0.7      0x1         0x2         aa:aa:aa:aa:aa:aa     *        wlan0
192.168.0.1      0x1         0x2         12:34:56:78:9a:bc     *        wlan0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_preferred_gateway_names_the_network() {
        assert_eq!(named(ROUTES, NEIGHBOURS).as_deref(), Some("12:34:56:78:9a:bc"));
        assert_eq!(named(ROUTES, "").as_deref(), Some("wlan0 192.168.0.1"));
    }

    #[test]
    fn without_a_default_route_there_is_none() {
        assert_eq!(named("Iface\tDestination\n", NEIGHBOURS), None);
        assert_eq!(named("", ""), None);
    }
}
