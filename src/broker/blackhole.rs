//! Sink that accepts and discards everything, for `--dry-run`.

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    BrokerError, Delivered, Outcome, Recovered, ResumePoint, SnapshotSession, SnapshotSink, Start,
    Written,
};
use crate::batch::Batch;

/// Accepts and discards everything.
pub(super) struct Blackhole {
    resume_point: ResumePoint,
}

impl Blackhole {
    pub(super) fn new() -> Self {
        Self {
            resume_point: ResumePoint::start_of(Uuid::nil()),
        }
    }
}

#[async_trait]
impl SnapshotSink for Blackhole {
    async fn open(self: Box<Self>) -> Result<(Recovered, Box<dyn SnapshotSession>), BrokerError> {
        Ok((Recovered::default(), self))
    }
}

#[async_trait]
impl SnapshotSession for Blackhole {
    async fn start(&mut self, start: Start) -> Result<(), BrokerError> {
        self.resume_point = start.resume_point();
        Ok(())
    }

    fn resume_point(&self) -> &ResumePoint {
        &self.resume_point
    }

    async fn write(&mut self, batch: &Batch) -> Result<Written, BrokerError> {
        self.resume_point.advance(batch);
        Ok(Written::Done)
    }

    async fn flush(&mut self) -> Result<Written, BrokerError> {
        Ok(Written::Done)
    }

    async fn restart(&mut self) -> Result<(), BrokerError> {
        self.resume_point = ResumePoint::start_of(self.resume_point.at.run_id);
        Ok(())
    }

    fn delivered(&self) -> Delivered {
        Delivered::default()
    }

    async fn finish(self: Box<Self>, _: Outcome) -> Result<(), BrokerError> {
        Ok(())
    }
}
