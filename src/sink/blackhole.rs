//! Sink that accepts and discards everything, for `--dry-run`.

use super::{Delivered, Outcome, Recovered, Sink, SinkError, Start, Unfinished};
use crate::batch::Batch;

/// Accepts and discards everything.
#[derive(Debug, Default)]
pub struct Blackhole;

impl Sink for Blackhole {
    async fn open(&mut self) -> Result<Recovered, SinkError> {
        Ok(Recovered::default())
    }

    async fn start(&mut self, start: Start<'_>) -> Result<Unfinished, SinkError> {
        Ok(start.resume_point())
    }

    async fn publish(&mut self, _: &Batch) -> Result<(), SinkError> {
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn delivered(&self) -> Delivered {
        Delivered::default()
    }

    async fn finish(&mut self, _: Outcome) -> Result<(), SinkError> {
        Ok(())
    }
}
