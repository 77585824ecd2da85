//! How many members labels have, read without a lock.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use super::exchange::load;
use crate::broker::error::Failure;
use crate::broker::redis::connect::Endpoint;
use crate::broker::redis::keys::Keys;
use crate::broker::redis::link::Link;
use crate::broker::{BrokerError, MemberCount, MemberMonitor, Target};

/// Time limit for the reading of a label.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// The members in states of queues elsewhere.
struct StateMembers(Links);

/// Connections: one, or in a cluster one for each key.
struct Links {
    endpoint: Endpoint,
    links: HashMap<String, Link>,
}

/// Returns the monitor of members in states, without connecting.
pub(in crate::broker) fn state_monitor(endpoint: &Endpoint) -> Box<dyn MemberMonitor> {
    Box::new(StateMembers(Links::new(endpoint)))
}

impl Links {
    fn new(endpoint: &Endpoint) -> Self {
        Self {
            endpoint: endpoint.clone(),
            links: HashMap::new(),
        }
    }

    /// Returns the connection to the server that holds a key.
    fn to(&mut self, key: &str) -> &mut Link {
        let name = if self.endpoint.is_cluster() { key } else { "" };
        let endpoint = &self.endpoint;
        let link = || Link::new(endpoint.clone(), key.to_owned());
        self.links.entry(name.to_owned()).or_insert_with(link)
    }
}

#[async_trait]
impl MemberMonitor for StateMembers {
    async fn members(&mut self, targets: &[Target]) -> Result<Vec<MemberCount>, BrokerError> {
        let mut counts = Vec::with_capacity(targets.len());
        for target in targets {
            let keys = Keys::of_state(target);
            let link = self.0.to(&keys.note);
            let loaded = match timeout(TIME_LIMIT, load(link, &keys)).await {
                Ok(loaded) => loaded,
                Err(_) => Err(Failure::Transient("no answer in time".to_owned())),
            };
            counts.push(loaded.map_err(|failure| fail(link, failure))?.into());
        }
        Ok(counts)
    }
}

/// Drops a connection whose state is unknown.
fn fail(link: &mut Link, failure: Failure) -> BrokerError {
    link.disconnect_after(&failure);
    failure.into()
}
