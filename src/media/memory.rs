//! Returns memory to the system when a capture ends.
//!
//! glibc gives each new thread its own arena, and GStreamer starts a dozen threads with every pipeline. What they
//! leave behind is scattered over arenas that are never given back: an idle daemon grew from 19 to 60 MB over 14
//! streams. With one arena, trimmed after each capture, it returns to 24 MB every time. The threads hardly ever wait
//! for each other, since pictures come from pools. Other C libraries have neither function.

#![allow(unsafe_code, reason = "settings of the C library, which not all of them have")]

/// Makes all threads share one arena. Call it before starting any.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes a setting of the allocator under the allocator's own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns free memory to the system. Takes up to a few milliseconds.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim releases free pages under the allocator's own lock.
    unsafe {
        libc::malloc_trim(0);
    }
}
