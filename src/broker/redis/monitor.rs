//! Members of labels and depths of streams, read without a lock: one round trip for all labels that
//! share a connection.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use redis::{FromRedisValue, Pipeline};
use tokio::time::timeout;

use super::backpressure::{Group, largest_lag};
use super::connect::Endpoint;
use super::keys::Keys;
use super::link::Link;
use crate::broker::error::Failure;
use crate::broker::{BrokerError, MemberCount, MemberMonitor, QueueDepth, QueueMonitor, Target};

/// Time limit for a reading.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Reads members and depths.
pub(in crate::broker) struct RedisMonitor {
    endpoint: Endpoint,
    partitions: Option<u32>,
    /// In a cluster one for each stream, else one for all.
    links: HashMap<String, Link>,
}

/// What is noted about the members of a stream.
type Noted = (Option<String>, Option<i64>, Option<u64>);

impl RedisMonitor {
    /// Creates the monitor without connecting.
    pub(in crate::broker) fn new(endpoint: &Endpoint, partitions: Option<u32>) -> Self {
        Self {
            endpoint: endpoint.clone(),
            partitions,
            links: HashMap::new(),
        }
    }

    /// Returns the keys of the streams of a label's queue.
    fn streams(&self, target: &Target) -> Vec<Keys> {
        match self.partitions {
            None => vec![Keys::new(target, None)],
            Some(count) => (0..count).map(|it| Keys::new(target, Some(it))).collect(),
        }
    }

    /// Asks about each stream, and returns the replies in the order of the streams.
    async fn ask<T: FromRedisValue>(
        &mut self,
        streams: &[&Keys],
        commands: impl Fn(&mut Pipeline, &Keys),
    ) -> Result<Vec<T>, Failure> {
        let is_cluster = self.endpoint.is_cluster();
        let mut by_link: HashMap<&str, Vec<usize>> = HashMap::new();
        for (number, keys) in streams.iter().enumerate() {
            let link = if is_cluster { keys.stream.as_str() } else { "" };
            by_link.entry(link).or_default().push(number);
        }
        let mut replies: Vec<Option<T>> = streams.iter().map(|_| None).collect();
        for (name, numbers) in by_link {
            let mut pipeline = Pipeline::new();
            for number in &numbers {
                commands(&mut pipeline, streams[*number]);
            }
            let link = self.links.entry(name.to_owned()).or_insert_with(|| {
                Link::new(self.endpoint.clone(), streams[numbers[0]].stream.clone())
            });
            let asked = async { pipeline.query_async(link.connection().await?).await };
            let late = |_| Failure::Transient("no answer in time".to_owned());
            let asked: Result<Vec<T>, Failure> = match timeout(TIME_LIMIT, asked).await {
                Ok(asked) => asked.map_err(Failure::from),
                Err(elapsed) => Err(late(elapsed)),
            };
            let asked = asked.inspect_err(|failure| link.disconnect_after(failure))?;
            for (number, reply) in numbers.into_iter().zip(asked) {
                replies[number] = Some(reply);
            }
        }
        Ok(replies.into_iter().flatten().collect())
    }

    async fn read_members(&mut self, targets: &[Target]) -> Result<Vec<MemberCount>, Failure> {
        let streams: Vec<Vec<Keys>> = targets.iter().map(|target| self.streams(target)).collect();
        let all: Vec<&Keys> = streams.iter().flatten().collect();
        let notes: Vec<Noted> = self
            .ask(&all, |pipeline, keys| {
                pipeline
                    .cmd("HMGET")
                    .arg(&keys.note)
                    .arg(&["trusted", "members", "as_of"]);
            })
            .await?;
        let sets: Vec<Option<String>> = self
            .ask(&all, |pipeline, keys| {
                pipeline.cmd("HGET").arg(&keys.members).arg(":");
            })
            .await?;
        let mut read = notes.into_iter().zip(sets);
        Ok(streams
            .iter()
            .map(|parts| count(read.by_ref().take(parts.len())))
            .collect())
    }

    async fn read_depths(&mut self, targets: &[Target]) -> Result<Vec<QueueDepth>, Failure> {
        let streams: Vec<Vec<Keys>> = targets.iter().map(|target| self.streams(target)).collect();
        let all: Vec<&Keys> = streams.iter().flatten().collect();
        let lengths: Vec<u64> = self
            .ask(&all, |pipeline, keys| {
                pipeline.cmd("XLEN").arg(&keys.stream);
            })
            .await?;
        // A stream that does not exist has no groups that could be asked for.
        let some = all.iter().zip(&lengths).filter(|(_, length)| **length > 0);
        let some: Vec<&Keys> = some.map(|(keys, _)| *keys).collect();
        let groups: Vec<Vec<Group>> = self
            .ask(&some, |pipeline, keys| {
                pipeline.cmd("XINFO").arg("GROUPS").arg(&keys.stream);
            })
            .await?;
        let mut groups = groups.into_iter();
        let mut lags = lengths.iter().map(|length| match length {
            0 => 0,
            _ => largest_lag(groups.next().unwrap_or_default(), *length),
        });
        let mut lengths = lengths.iter();
        Ok(streams
            .iter()
            .map(|parts| QueueDepth {
                messages: Some(lengths.by_ref().take(parts.len()).sum()),
                lag: Some(lags.by_ref().take(parts.len()).sum()),
            })
            .collect())
    }
}

/// Adds up the parts of a label. Its number is exact if each part has had a whole list.
fn count(parts: impl Iterator<Item = (Noted, Option<String>)>) -> MemberCount {
    let (mut members, mut lists) = (0, Vec::new());
    for ((trusted, noted, as_of), set) in parts {
        let noted = noted.filter(|_| set.is_some()).unwrap_or(0);
        members += u64::try_from(noted).unwrap_or(0);
        lists.push(as_of.filter(|_| trusted.is_some() && trusted == set));
    }
    let lists: Option<Vec<u64>> = lists.into_iter().collect();
    let oldest = lists.and_then(|lists| lists.into_iter().min());
    MemberCount {
        members,
        listed_at: oldest.map(|at| UNIX_EPOCH + Duration::from_secs(at)),
    }
}

#[async_trait]
impl MemberMonitor for RedisMonitor {
    async fn members(&mut self, targets: &[Target]) -> Result<Vec<MemberCount>, BrokerError> {
        Ok(self.read_members(targets).await?)
    }
}

#[async_trait]
impl QueueMonitor for RedisMonitor {
    async fn depths(&mut self, targets: &[Target]) -> Result<Vec<QueueDepth>, BrokerError> {
        Ok(self.read_depths(targets).await?)
    }
}
