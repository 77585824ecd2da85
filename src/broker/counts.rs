//! Storage of counts, so that they can be shown without asking the API.

use async_trait::async_trait;

use super::BrokerError;
use crate::state::counts::LabelCount;

/// The stored counts of one account's labels.
#[async_trait]
pub trait CountStore: Send {
    /// Stores counts. Other labels keep theirs. A label without a name or a colour keeps the stored
    /// ones.
    ///
    /// # Errors
    ///
    /// If that fails. The counts may be stored nevertheless.
    async fn record(&mut self, counts: &[LabelCount]) -> Result<(), BrokerError>;

    /// Stores counts as [`CountStore::record`] does, and removes those of labels that are not in
    /// the account's list of labels.
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
}
