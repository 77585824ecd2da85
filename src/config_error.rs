//! Configuration errors: all of them at once, each with its fix.

use std::fmt;

/// One configuration error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The problem, and where the value was set.
    pub problem: String,
    /// The flag, variable and key that fix it.
    pub fix: String,
}

/// All configuration errors; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(crate) fn or_nothing(mut errors: Vec<ConfigError>) -> Result<(), Self> {
        // A setting that was read twice is reported once.
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

    /// Iterates over the errors.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("1 setting is wrong")?,
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
