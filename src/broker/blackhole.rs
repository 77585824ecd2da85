//! Sink that accepts and discards everything, for `--dry-run`.

use super::{BrokerError, Delivered, Outcome, Recovered, Sink, Start, Unfinished};
use crate::batch::Batch;

/// Accepts and discards everything.
#[derive(Debug, Default)]
pub struct Blackhole;

impl Sink for Blackhole {
    async fn open(&mut self) -> Result<Recovered, BrokerError> {
        Ok(Recovered::default())
    }

    async fn start(&mut self, start: Start<'_>) -> Result<Unfinished, BrokerError> {
        Ok(start.resume_point())
    }

    async fn publish(&mut self, _: &Batch) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), BrokerError> {
        Ok(())
    }

    fn delivered(&self) -> Delivered {
        Delivered::default()
    }

    async fn finish(&mut self, _: Outcome) -> Result<(), BrokerError> {
        Ok(())
    }
}
