//! The terminal: its size and abilities, and the live view's screen.

#![expect(unsafe_code, reason = "ioctl")]

use std::io::{self, IsTerminal, Write};

/// Whether standard output is a terminal that understands cursor movements.
pub fn is_live() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Whether colors are possible and wanted (<https://no-color.org>).
pub fn has_color() -> bool {
    is_live() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns and rows; 80 by 24 if the terminal does not say.
pub fn size() -> (usize, usize) {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` to the pointer, which is valid for the call.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if result == 0 && size.ws_col > 0 && size.ws_row > 0 {
        (usize::from(size.ws_col), usize::from(size.ws_row))
    } else {
        (80, 24)
    }
}

/// The alternate screen, without cursor and line wrapping. Restores the terminal when dropped.
pub struct Screen {
    output: io::Stdout,
}

impl Screen {
    /// Takes over the terminal.
    pub fn enter() -> io::Result<Self> {
        let mut screen = Self { output: io::stdout() };
        screen.write("\x1b[?1049h\x1b[?25l\x1b[?7l")?;
        Ok(screen)
    }

    /// Redraws in place: new text overwrites the old, without a blank moment in between.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        self.write(&frame(lines))
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.output.write_all(text.as_bytes())?;
        self.output.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone; that may be why this ends.
        let _ = self.write("\x1b[?7h\x1b[?25h\x1b[?1049l");
    }
}

fn frame(lines: &[String]) -> String {
    let mut frame = String::from("\x1b[H");
    for (number, line) in lines.iter().enumerate() {
        if number > 0 {
            frame.push_str("\r\n");
        }
        frame.push_str(line);
        frame.push_str("\x1b[K");
    }
    frame.push_str("\x1b[J");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_clears_what_it_does_not_cover_and_does_not_scroll() {
        let frame = frame(&["one".into(), "two".into()]);
        assert_eq!(frame, "\x1b[Hone\x1b[K\r\ntwo\x1b[K\x1b[J");
    }
}
