//! What is known between runs: where it is kept, and what is kept beside the messages.

use std::path::Path;

use super::{Address, Broker, Kind};
use crate::broker::embedded::{self, Embedded};
use crate::broker::purge::impossible;
use crate::broker::store::{EventStore, StateStore};
use crate::broker::{
    BrokerError, BrokerOptions, CountStore, MemberMonitor, Purge, PurgeOutcome, SessionContext,
    lines, rabbitmq, redis, tracked,
};
use crate::retry::RetryPolicy;

/// A hold on a state in a file.
pub struct StateHold {
    _hold: Option<embedded::Hold>,
}

/// Where what is known between runs is kept, if not beside the messages.
#[derive(Clone, Debug)]
pub struct StateAddress(StateKind);

#[derive(Clone, Debug)]
enum StateKind {
    /// An embedded database in a file.
    File(Embedded),
    /// A Redis server, cluster or set of sentinels.
    Redis(Box<redis::Endpoint>),
}

impl StateAddress {
    /// Parses the URL of a state.
    ///
    /// # Errors
    ///
    /// A description of the problem, which does not quote the URL: it may contain a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        if let Some(path) = lines::path_of(url) {
            return path.map(|path| Self(StateKind::File(Embedded::new(path))));
        }
        if let Some(endpoint) = redis::Endpoint::parse(url) {
            return Ok(Self(StateKind::Redis(Box::new(endpoint?))));
        }
        Err("is not a state; there are file:PATH and the URLs of Redis".to_owned())
    }

    /// Whether this is the server of a sink, which keeps what is known between runs by itself.
    pub fn is_own_of(&self, sink: &Address) -> bool {
        match (&self.0, &sink.0) {
            (StateKind::Redis(state), Kind::Redis(sink)) => state.is_same(sink),
            _ => false,
        }
    }

    /// The path of the file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match &self.0 {
            StateKind::File(file) => Some(file.path()),
            StateKind::Redis(_) => None,
        }
    }

    /// Returns the store for a label's list, without connecting.
    pub(super) fn store(
        &self,
        options: &BrokerOptions,
        context: &SessionContext,
    ) -> Box<dyn StateStore> {
        match &self.0 {
            StateKind::File(file) => file.store(context, options.retain),
            StateKind::Redis(endpoint) => redis::store(endpoint, options, context),
        }
    }

    /// Returns the store for a label's events, without connecting.
    pub(super) fn event_store(
        &self,
        options: &BrokerOptions,
        context: &SessionContext,
    ) -> Box<dyn EventStore> {
        match &self.0 {
            StateKind::File(file) => file.event_store(context, options.retain),
            StateKind::Redis(endpoint) => redis::event_store(endpoint, options, context),
        }
    }
}

impl Broker {
    /// Returns the store of an account's counts, without connecting: at the state, or at a sink
    /// that keeps one. `None` if there is neither.
    pub fn count_store(&self, instance_id: &str) -> Option<Box<dyn CountStore>> {
        let retain = self.options.retain;
        let endpoint = match (&self.state, &self.address.0) {
            (Some(StateAddress(StateKind::Redis(endpoint))), _) => endpoint,
            (Some(StateAddress(StateKind::File(embedded))), _) => {
                return Some(Box::new(embedded.counts(instance_id, retain)));
            }
            (None, Kind::Redis(endpoint)) => endpoint,
            (None, Kind::Stdout | Kind::File(_) | Kind::RabbitMq(_)) => return None,
        };
        Some(Box::new(redis::RedisCounts::new(
            endpoint,
            instance_id,
            retain,
        )))
    }

    /// Takes hold of a state in a file, for as long as the result lives; nothing for other states.
    /// Without it, the file is free whenever nobody uses it.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Locked`] if another process holds it.
    pub fn hold_state(&self) -> Result<StateHold, BrokerError> {
        let hold = match &self.state {
            Some(StateAddress(StateKind::File(embedded))) => Some(embedded.hold()?),
            Some(StateAddress(StateKind::Redis(_))) | None => None,
        };
        Ok(StateHold { _hold: hold })
    }

    /// Returns the monitor of the labels' members, without connecting: at the state, or at a sink
    /// that keeps one. `None` if there is neither.
    pub fn member_monitor(&self) -> Option<Box<dyn MemberMonitor>> {
        match (&self.state, &self.address.0) {
            (Some(StateAddress(StateKind::File(embedded))), _) => Some(embedded.member_monitor()),
            (Some(StateAddress(StateKind::Redis(endpoint))), _) => {
                Some(redis::state_monitor(endpoint))
            }
            (None, Kind::Redis(endpoint)) => {
                let partitions = self.options.partitions;
                Some(Box::new(redis::RedisMonitor::new(endpoint, partitions)))
            }
            (None, Kind::Stdout | Kind::File(_) | Kind::RabbitMq(_)) => None,
        }
    }

    /// Checks that a run could use its state; `None` if it has none outside the sink.
    ///
    /// # Errors
    ///
    /// The error that a run would end with.
    pub async fn check_state(&self, context: &SessionContext) -> Option<Result<(), BrokerError>> {
        let selection = &context.selection;
        let state = self.state.as_ref().filter(|_| selection.is_active())?;
        Some(tracked::check(state.store(&self.options, context), selection).await)
    }

    /// Deletes what is stored at the sink and in the state.
    pub async fn purge(&self, purge: &Purge, retry: &RetryPolicy) -> PurgeOutcome {
        if let Some(StateAddress(StateKind::Redis(endpoint))) = &self.state
            && let Err(error) = redis::check_purge(endpoint, purge)
        {
            return PurgeOutcome::failed(error);
        }
        let mut outcome = self.purge_sink(purge, retry).await;
        let is_refused = |error: &BrokerError| matches!(error, BrokerError::Misconfigured { .. });
        if outcome.errors.iter().any(is_refused) {
            return outcome;
        }
        match &self.state {
            Some(StateAddress(StateKind::Redis(endpoint))) => {
                outcome.merge(redis::purge_state(endpoint, purge, retry).await);
            }
            Some(StateAddress(StateKind::File(embedded))) => match embedded.purge(purge).await {
                Ok(purged) => outcome.add(purged, Ok(())),
                Err(error) => outcome.errors.push(error),
            },
            None => {}
        }
        if let Some(mut store) = self.count_store(&purge.instance_id) {
            outcome.purge_counts(&mut *store, purge).await;
        }
        outcome
    }

    async fn purge_sink(&self, purge: &Purge, retry: &RetryPolicy) -> PurgeOutcome {
        match &self.address.0 {
            // There may be nothing but the state.
            Kind::Stdout if self.state.is_some() => PurgeOutcome::default(),
            Kind::Stdout => {
                let problem = "the sink “-” stores nothing that could be deleted";
                let fix = "name the sink that the runs publish to in --sink";
                PurgeOutcome::failed(impossible(problem, fix))
            }
            Kind::File(path) => lines::purge(path, purge, retry.shutdown()).await,
            Kind::Redis(endpoint) => {
                redis::purge(endpoint, self.options.partitions, purge, retry).await
            }
            Kind::RabbitMq(endpoint) => rabbitmq::purge(endpoint, purge, retry).await,
        }
    }
}
