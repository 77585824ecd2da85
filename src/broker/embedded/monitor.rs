//! How many members labels have, read without a turn.

use async_trait::async_trait;
use rusqlite::OptionalExtension as _;

use super::database::Work;
use super::members::{self, Scope, now};
use super::{Embedded, blocking};
use crate::broker::{BrokerError, MemberCount, MemberMonitor, Target};

/// The members of the lists in the file.
struct EmbeddedMembers(Embedded);

impl Embedded {
    /// Returns the monitor of members, without opening the file.
    pub(in crate::broker) fn member_monitor(&self) -> Box<dyn MemberMonitor> {
        Box::new(EmbeddedMembers(self.clone()))
    }
}

#[async_trait]
impl MemberMonitor for EmbeddedMembers {
    async fn members(&mut self, targets: &[Target]) -> Result<Vec<MemberCount>, BrokerError> {
        let (embedded, targets) = (self.0.clone(), targets.to_vec());
        if !embedded.path().exists() {
            return Ok(vec![MemberCount::default(); targets.len()]);
        }
        let count = move |work: &Work<'_>| targets.iter().map(|it| count(work, it)).collect();
        blocking(move || embedded.open()?.run(count)).await
    }
}

fn count(work: &Work<'_>, target: &Target) -> rusqlite::Result<MemberCount> {
    let select = "SELECT list, expires_at FROM lists
                  WHERE queue = ? AND label_id = ? AND instance_id = ?";
    let parameters = [&target.queue, &target.label_id, &target.instance_id];
    let found: Option<(i64, Option<i64>)> = work
        .prepare_cached(select)?
        .query_row(parameters, |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let live = found.filter(|(_, expires_at)| expires_at.is_none_or(|at| at >= now()));
    let Some((list, _)) = live else {
        return Ok(MemberCount::default());
    };
    let scope = Scope {
        list,
        queue_id: 0,
        retain: None,
    };
    Ok(members::load(work, &scope)?.into())
}
