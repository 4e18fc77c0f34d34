//! Whether the board has a network: `class/net/*`.

use std::path::Path;

use super::{folders, line};

/// Bit of `flags`: the interface was set up (`IFF_UP`).
const UP: u32 = 1;

/// Whether an interface other than loopback can carry traffic. `None`: unknown. An interface that does not report its
/// state (`unknown`: modems, tunnels, USB) counts as able.
pub fn up(sys: &Path) -> Option<bool> {
    let net = sys.join("class/net");
    if !net.is_dir() {
        return None;
    }
    Some(folders(&net).iter().filter(|folder| folder.file_name().is_some_and(|name| name != "lo")).any(|folder| {
        let flags = line(&folder.join("flags"));
        let set_up = flags.and_then(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok());
        let state = line(&folder.join("operstate"));
        set_up.is_none_or(|flags| flags & UP != 0)
            && state.is_none_or(|state| matches!(state.as_str(), "up" | "unknown"))
    }))
}
