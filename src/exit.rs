//! The exit codes.

/// The exit codes: `sysexits.h` where it has a fitting one, 80 and above where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Complete = 0,
    /// A wrong command line.
    Usage = 64,
    /// The body is not what the API is documented to send.
    Data = 65,
    /// The API or the sink is unavailable after all retries.
    Unavailable = 69,
    /// A bug in labelcast.
    Bug = 70,
    /// Reading or writing a local file failed.
    File = 74,
    /// Cut short by a signal or the deadline; a later run resumes.
    Interrupted = 75,
    /// The API answered with an error.
    Api = 76,
    /// The API or the sink refused the credentials.
    Credentials = 77,
    /// Settings are wrong.
    Settings = 78,
    /// A guard stopped the run.
    Guarded = 80,
    /// Another run holds this queue and label.
    Locked = 81,
}

impl Exit {
    /// Precedence for a run over several labels: the first of these that occurred is the exit code.
    pub const BY_WEIGHT: [Self; 12] = [
        Self::Bug,
        Self::Settings,
        Self::Credentials,
        Self::Data,
        Self::Api,
        Self::Guarded,
        Self::Locked,
        Self::File,
        Self::Unavailable,
        Self::Interrupted,
        Self::Usage,
        Self::Complete,
    ];

    /// The process's exit status.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The one of both with precedence.
    #[must_use]
    pub fn heavier(self, other: Self) -> Self {
        let decides = |exit: &&Self| **exit == self || **exit == other;
        Self::BY_WEIGHT
            .iter()
            .find(decides)
            .copied()
            .unwrap_or(self)
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_hold_each_code_once() {
        let mut codes: Vec<_> = Exit::BY_WEIGHT.iter().map(|exit| exit.code()).collect();
        codes.sort_unstable();
        assert_eq!(codes, [0, 64, 65, 69, 70, 74, 75, 76, 77, 78, 80, 81]);
    }

    #[test]
    fn a_guard_weighs_more_than_an_interruption_and_less_than_bad_data() {
        assert_eq!(Exit::Interrupted.heavier(Exit::Guarded), Exit::Guarded);
        assert_eq!(Exit::Data.heavier(Exit::Guarded), Exit::Data);
        assert_eq!(Exit::Complete.heavier(Exit::Unavailable), Exit::Unavailable);
    }
}
