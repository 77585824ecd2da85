//! Storage of counts and of the ends of runs, so that they can be shown without asking the API.

use async_trait::async_trait;

use super::BrokerError;
use crate::state::counts::LabelCount;
use crate::state::runs::LastRun;

/// The stored counts of one account's labels.
#[async_trait]
pub trait CountStore: Send {
    /// Stores counts. Other labels keep theirs. A label without a name, a colour, a count or a time of
    /// deletion keeps the stored one.
    ///
    /// # Errors
    ///
    /// If that fails. The counts may be stored nevertheless.
    async fn record(&mut self, counts: &[LabelCount]) -> Result<(), BrokerError>;

    /// Stores counts as [`CountStore::record`] does, and removes those of labels that are not in
    /// the account's list of labels, with their last runs.
    ///
    /// # Errors
    ///
    /// If that fails. The counts may be stored nevertheless.
    async fn replace(&mut self, counts: &[LabelCount], labels: &[&str]) -> Result<(), BrokerError>;

    /// Reads all counts, in the order of [`LabelCount::sort`].
    ///
    /// # Errors
    ///
    /// If that fails.
    async fn load(&mut self) -> Result<Vec<LabelCount>, BrokerError>;

    /// Stores the end of a label's run, in place of the one before.
    ///
    /// # Errors
    ///
    /// If that fails. It may be stored nevertheless.
    async fn record_run(&mut self, run: &LastRun) -> Result<(), BrokerError>;

    /// Reads the last run of each label.
    ///
    /// # Errors
    ///
    /// If that fails.
    async fn load_runs(&mut self) -> Result<Vec<LastRun>, BrokerError>;
}
