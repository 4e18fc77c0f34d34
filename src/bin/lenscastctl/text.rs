//! Lines of text for a terminal: tones, wrapping, and removal of what others may have put in.

use std::fmt::Write;

/// How a text is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// An ordinary value.
    Plain,
    /// Less important.
    Dim,
    /// All is well.
    Good,
    /// Worth attention.
    Warn,
    /// Something is wrong.
    Bad,
}

impl Tone {
    fn escape(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Dim => Some("\x1b[2m"),
            Self::Good => Some("\x1b[32m"),
            Self::Warn => Some("\x1b[33m"),
            Self::Bad => Some("\x1b[31m"),
        }
    }
}

/// A labelled line of a few chunks that stay whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    label: &'static str,
    chunks: Vec<(Tone, String)>,
}

/// Columns of the label and the gap after it.
const INDENT: usize = 9;

impl Row {
    /// A line without chunks.
    pub fn new(label: &'static str) -> Self {
        Self { label, chunks: Vec::new() }
    }

    /// Adds a chunk; an empty one is left out.
    pub fn with(mut self, tone: Tone, text: impl AsRef<str>) -> Self {
        let text = clean(text.as_ref());
        if !text.is_empty() {
            self.chunks.push((tone, text));
        }
        self
    }

    /// The lines, at most `width` columns each: a chunk that does not fit moves to the next line, one that never fits
    /// is cut.
    pub fn lines(&self, width: usize, color: bool) -> Vec<String> {
        let room = width.saturating_sub(INDENT).max(1);
        let mut lines = Vec::new();
        let mut line = String::new();
        let mut used = 0;
        for (tone, text) in &self.chunks {
            let text = cut(text, room);
            let length = text.chars().count();
            if used > 0 && used + 2 + length > room {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            if used > 0 {
                line.push_str("  ");
                used += 2;
            }
            match tone.escape().filter(|_| color) {
                Some(escape) => {
                    let _ = write!(line, "{escape}{text}\x1b[0m");
                }
                None => line.push_str(&text),
            }
            used += length;
        }
        lines.push(line);
        let label = |number| if number == 0 { self.label } else { "" };
        let labelled = |(number, line): (usize, String)| {
            let line = format!("{:<INDENT$}{line}", label(number));
            // A terminal too narrow for labels gets what fits.
            if width < INDENT { cut(&line, width) } else { line.trim_end().to_owned() }
        };
        lines.into_iter().enumerate().map(labelled).collect()
    }
}

/// `text` cut to `width` columns.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        kept.push('…');
    }
    kept
}

/// `text` without control sequences that a terminal would obey. Names of apps and programs come from other people.
pub fn clean(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if obeyed(c) { '·' } else { c }).collect()
}

/// Bits per second, human-readable.
pub fn bitrate(bits: u64) -> String {
    match bits {
        0..1_000 => format!("{bits} bit/s"),
        1_000..1_000_000 => format!("{} kbit/s", bits / 1_000),
        _ => format!("{:.2} Mbit/s", bits as f64 / 1e6),
    }
}

/// Seconds, human-readable.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_wrap_whole_and_long_ones_are_cut() {
        let row = Row::new("media").with(Tone::Plain, "1280x720").with(Tone::Plain, "30 fps").with(Tone::Plain, "");
        assert_eq!(row.lines(80, false), ["media    1280x720  30 fps"]);
        assert_eq!(row.lines(20, false), ["media    1280x720", "         30 fps"]);
        assert_eq!(row.lines(14, false), ["media    1280…", "         30 f…"]);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let row =
            Row::new("stream").with(Tone::Good, "streaming").with(Tone::Plain, "rtmp://a-rather-long.example/live");
        for width in 0..60 {
            for line in row.lines(width, false) {
                assert!(line.chars().count() <= width.max(INDENT + 1), "{width}: {line:?}");
            }
        }
    }

    #[test]
    fn color_is_only_there_when_wanted() {
        let row = Row::new("x").with(Tone::Bad, "error");
        assert_eq!(row.lines(80, true), ["x        \x1b[31merror\x1b[0m"]);
        assert!(!row.lines(80, false)[0].contains('\x1b'));
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        let row = Row::new("owner").with(Tone::Plain, "app\x1b[2J\u{9b}31m\r\nroot:\u{202e}x");
        let line = row.lines(80, false).concat();
        assert!(line.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{line:?}");
        assert!(line.contains("app"));
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(bitrate(0), "0 bit/s");
        assert_eq!(bitrate(640_000), "640 kbit/s");
        assert_eq!(bitrate(1_923_000), "1.92 Mbit/s");
        assert_eq!(
            [59, 60, 3_599, 3_600, 90_000].map(duration),
            ["59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "1 d 1 h"]
        );
    }
}
