//! How many members labels have, read without a lock.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;

use super::exchange::load;
use crate::broker::error::Failure;
use crate::broker::redis::connect::Endpoint;
use crate::broker::redis::keys::Keys;
use crate::broker::redis::link::Link;
use crate::broker::{BrokerError, MemberCount, MemberMonitor, Target};

/// The members in states of queues elsewhere.
struct StateMembers(Links);

/// The members beside streams.
struct StreamMembers {
    links: Links,
    partitions: Option<u32>,
}

/// Connections: one, or in a cluster one for each key.
struct Links {
    endpoint: Endpoint,
    links: HashMap<String, Link>,
}

/// Returns the monitor of members in states, without connecting.
pub(in crate::broker) fn state_monitor(endpoint: &Endpoint) -> Box<dyn MemberMonitor> {
    Box::new(StateMembers(Links::new(endpoint)))
}

/// Returns the monitor of members beside streams, without connecting.
pub(in crate::broker) fn member_monitor(
    endpoint: &Endpoint,
    partitions: Option<u32>,
) -> Box<dyn MemberMonitor> {
    Box::new(StreamMembers {
        links: Links::new(endpoint),
        partitions,
    })
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
            let loaded = load(link, &keys).await;
            counts.push(loaded.map_err(|failure| fail(link, failure))?.into());
        }
        Ok(counts)
    }
}

#[async_trait]
impl MemberMonitor for StreamMembers {
    async fn members(&mut self, targets: &[Target]) -> Result<Vec<MemberCount>, BrokerError> {
        let mut counts = Vec::with_capacity(targets.len());
        for target in targets {
            counts.push(self.count(target).await?);
        }
        Ok(counts)
    }
}

impl StreamMembers {
    /// Sums over the streams of a queue. The sum is exact if each part is.
    async fn count(&mut self, target: &Target) -> Result<MemberCount, BrokerError> {
        let partitions: Vec<Option<u32>> = match self.partitions {
            None => vec![None],
            Some(count) => (0..count).map(Some).collect(),
        };
        let mut sum: Option<MemberCount> = None;
        for partition in partitions {
            let keys = Keys::new(target, partition);
            let link = self.links.to(&keys.note);
            let counted = stream_count(link, &keys).await;
            let part = counted.map_err(|failure| fail(link, failure))?;
            sum = Some(match sum {
                None => part,
                Some(sum) => MemberCount {
                    members: sum.members + part.members,
                    listed_at: sum.listed_at.min(part.listed_at),
                },
            });
        }
        Ok(sum.unwrap_or_default())
    }
}

async fn stream_count(link: &mut Link, keys: &Keys) -> Result<MemberCount, Failure> {
    let (note, set): ([Option<String>; 3], Option<String>) = redis::pipe()
        .cmd("HMGET")
        .arg(&keys.note)
        .arg(&["trusted", "members", "as_of"])
        .cmd("HGET")
        .arg(&keys.members)
        .arg(":")
        .query_async(link.connection().await?)
        .await?;
    let [trusted, members, as_of] = note;
    let Some(set) = set else {
        return Ok(MemberCount::default());
    };
    let is_whole = trusted.as_ref() == Some(&set);
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let listed_at = number(as_of).filter(|_| is_whole);
    Ok(MemberCount {
        members: number(members).unwrap_or(0),
        listed_at: listed_at.map(|at| UNIX_EPOCH + Duration::from_secs(at)),
    })
}

/// Drops a connection whose state is unknown.
fn fail(link: &mut Link, failure: Failure) -> BrokerError {
    link.disconnect_after(&failure);
    failure.into()
}
