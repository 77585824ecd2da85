//! What is wrong with the settings, all of it, each with what mends it.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// What is wrong, and where it was set.
    pub problem: String,
    /// The flag, variable and key that mend it.
    pub fix: String,
}

/// All that is wrong; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(super) fn or_nothing(mut errors: Vec<ConfigError>) -> Result<(), Self> {
        // A setting that was read twice is wrong once.
        let mut reported = Vec::new();
        errors.retain(|error| {
            let is_new = !reported.contains(error);
            reported.push(error.clone());
            is_new
        });
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Self(errors))
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("a setting is wrong")?,
            count => write!(f, "{count} settings are wrong")?,
        }
        for error in &self.0 {
            write!(f, "\n  - {}", error.problem)?;
            if !error.fix.is_empty() {
                write!(f, "\n    set it with {}", error.fix)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
