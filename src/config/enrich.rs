//! The settings of `labelcast enrich`.

use std::net::SocketAddr;

use super::values::{Optional, Reader};
use super::{ConfigSources, sink};
use crate::broker::factory::SinkSettings;
use crate::enrich::lookup::Include;
use crate::enrich::{EnrichSettings, LookupSettings, Queues};
use crate::message::ContactField;

/// The maximum of `enrich.concurrency`.
const MAX_CONCURRENCY: u64 = 1000;
/// The names of what can be asked for beside the contact itself.
const ABOUT: &str = "about";
const PHOTO: &str = "photo";

pub(super) fn read(sources: &mut ConfigSources) -> Option<(EnrichSettings, Option<SocketAddr>)> {
    let api = sources.api();
    let sink = sink::read_for_messages(sources);
    let mut read = Reader::new(sources);
    let queues = queues(&mut read, sink.as_ref());
    let lookups = lookups(&mut read);
    let fields = fields(&mut read, lookups.map(|lookups| lookups.include));
    let drain = read.switch("enrich.drain");
    let metrics_bind = metrics_bind(&mut read);
    let settings = EnrichSettings {
        api: api?,
        sink: sink?,
        queues: queues?,
        lookups: lookups?,
        fields: fields?,
        drain: drain?,
    };
    Some((settings, metrics_bind?))
}

fn queues(read: &mut Reader<'_>, sink: Option<&SinkSettings>) -> Option<Queues> {
    let from = queue(read, "enrich.from", sink);
    let to = queue(read, "enrich.to", sink);
    let group = read.required("enrich.group");
    let queues = Queues {
        from: from?,
        to: to?,
        group: group?,
    };
    if queues.from == queues.to {
        read.error(
            "enrich.to",
            "is the queue of --from: records need a queue of their own",
        );
        return None;
    }
    if queues.from == queues.failed() {
        let problem = "would put the ids that cannot be looked up into the queue of --from again";
        read.error("enrich.to", problem);
        return None;
    }
    Some(queues)
}

/// Reads the whole name of a queue.
fn queue(read: &mut Reader<'_>, key: &'static str, sink: Option<&SinkSettings>) -> Option<String> {
    let queue = read.required(key)?;
    if queue.contains("{label_id}") || queue.contains("{instance_id}") {
        read.error(key, "is one queue, by its whole name");
        return None;
    }
    // The queue of failures has the longest name.
    let failed = format!("{queue}:failed");
    let problem = sink.and_then(|sink| sink.broker.address.problem_with_name(&failed));
    if let Some(problem) = problem {
        read.error(key, &problem);
        return None;
    }
    Some(queue)
}

fn lookups(read: &mut Reader<'_>) -> Option<LookupSettings> {
    let concurrency = read.number("enrich.concurrency", 1..=MAX_CONCURRENCY);
    let rate = read.text("enrich.rate").parse();
    let rate = rate.map_err(|error: crate::enrich::rate::NotARate| {
        read.error("enrich.rate", &error.to_string());
    });
    let include = include(read);
    let check_exists = read.switch("enrich.check_exists");
    let attempts = read.number("enrich.attempts", 1..=100);
    Some(LookupSettings {
        concurrency: usize::try_from(concurrency?).ok()?,
        rate: rate.ok()?,
        include: include?,
        check_exists: check_exists?,
        attempts: u32::try_from(attempts?).ok()?,
    })
}

fn include(read: &mut Reader<'_>) -> Option<Include> {
    let names = read.names("enrich.include", &[PHOTO, ABOUT])?;
    Some(Include {
        about: names.contains(&ABOUT),
        photo: names.contains(&PHOTO),
    })
}

/// Reads the members of records. What is never asked for must not be named.
fn fields(read: &mut Reader<'_>, include: Option<Include>) -> Option<Vec<ContactField>> {
    let key = "enrich.fields";
    let names = read.names(key, &ContactField::ALL.map(ContactField::name))?;
    let all = ContactField::ALL.into_iter();
    let fields: Vec<ContactField> = all.filter(|field| names.contains(&field.name())).collect();
    let include = include?;
    if read.is_set(key) {
        for (field, is_asked, name) in [
            (ContactField::About, include.about, ABOUT),
            (ContactField::PictureUrl, include.photo, PHOTO),
        ] {
            if fields.contains(&field) && !is_asked {
                let problem = format!("{} is only known with --include {name}", field.name());
                read.error(key, &problem);
                return None;
            }
        }
    }
    Some(fields)
}

fn metrics_bind(read: &mut Reader<'_>) -> Optional<SocketAddr> {
    read.optional("enrich.metrics_bind", Reader::address)
}
