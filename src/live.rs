//! The live list: label events on the queues, and what is known of the labels meanwhile.

pub mod inbound;
pub mod overview;
