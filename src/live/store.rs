//! The stored counts, names and last runs of the labels.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::broker::{BrokerError, CountStore};
use crate::state::counts::LabelCount;
use crate::state::runs::LastRun;

/// Time limit for a call, so that a webhook is answered in time.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// The stored counts, shared by all who read and write them.
pub struct LabelStore {
    store: Mutex<Box<dyn CountStore>>,
}

impl LabelStore {
    /// Shares a store.
    pub fn new(store: Box<dyn CountStore>) -> Self {
        Self {
            store: Mutex::new(store),
        }
    }

    /// Stores counts.
    ///
    /// # Errors
    ///
    /// If they may not be stored.
    pub async fn record_all(&self, labels: &[LabelCount]) -> Result<(), BrokerError> {
        if labels.is_empty() {
            return Ok(());
        }
        let recording = async { self.store.lock().await.record(labels).await };
        timeout(TIME_LIMIT, recording)
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    /// Reads counts and last runs.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub async fn load(&self) -> Result<(Vec<LabelCount>, Vec<LastRun>), BrokerError> {
        let loading = async {
            let mut store = self.store.lock().await;
            Ok((store.load().await?, store.load_runs().await?))
        };
        timeout(TIME_LIMIT, loading)
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

fn late() -> BrokerError {
    BrokerError::Unavailable("the state has not answered in time".to_owned())
}
