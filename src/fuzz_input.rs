//! Helpers for fuzz targets: the input as bytes taken one after another, and the secret that must not be shown.

/// Stands for a stream key or token in inputs. Text for people must not contain it.
pub(crate) const SECRET: &str = "s3cr3t-k3y";

/// Panics if `printed` contains the secret.
pub(crate) fn assert_hidden(printed: &str) {
    assert!(!printed.contains(SECRET), "{printed}");
}

/// Bytes taken one after another, so that a small change of the input has a small effect. After the end come zeros.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// Reads a big-endian number.
    pub fn number(&mut self, bytes: usize) -> u32 {
        self.take(bytes).iter().fold(0, |number, &byte| number << 8 | u32::from(byte))
    }

    /// The next `count` bytes, or what is left.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
