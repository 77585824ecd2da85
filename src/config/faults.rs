//! What is wrong with the settings, all of it, each with what mends it.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, and where it was set.
    pub what: String,
    /// The flag, variable and key that mend it.
    pub mend: String,
}

/// All that is wrong; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn or_nothing(mut faults: Vec<Fault>) -> Result<(), Self> {
        // A setting that was read twice is wrong once.
        let mut seen = Vec::new();
        faults.retain(|fault| {
            let is_new = !seen.contains(fault);
            seen.push(fault.clone());
            is_new
        });
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Self(faults))
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("a setting is wrong")?,
            count => write!(f, "{count} settings are wrong")?,
        }
        for fault in &self.0 {
            write!(f, "\n  - {}", fault.what)?;
            if !fault.mend.is_empty() {
                write!(f, "\n    set it with {}", fault.mend)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
