//! A string that logs cannot show.

use std::fmt;

use serde::Deserialize;

/// A token or password. Neither `{}` nor `{:?}` prints it, and it does not serialize. [`Secret::expose`] is the only
/// access to its text, so that every use can be found by that name.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret from here on.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for sending it to its peer only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_from_a_configuration_and_never_printed() {
        #[derive(Debug, Deserialize)]
        struct Config {
            token: Secret,
        }
        let config: Config = toml::from_str("token = \"hunter2\"").unwrap();
        assert_eq!(config.token.expose(), "hunter2");
        assert!(!config.token.is_empty() && Secret::default().is_empty());
        for printed in [format!("{config:?}"), format!("{config:#?}"), format!("{}", config.token)] {
            assert!(!printed.contains("hunter2") && printed.contains("***"), "{printed}");
        }
    }
}
