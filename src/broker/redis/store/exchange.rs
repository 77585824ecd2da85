//! Exchanges that runs and events have in common: taking turns, and reading.

use redis::Script;

use super::{NO_CHATS, TURN_LASTS};
use crate::broker::error::Failure;
use crate::broker::redis::keys::Keys;
use crate::broker::redis::link::{Link, reply_text};
use crate::broker::store::{Known, Note, Stored, is_begun_by_events, parse_record};

/// Takes the turn for a batch of a run, or for events about some chats. Returns whether it was taken.
pub(super) async fn turn(
    link: &mut Link,
    keys: &Keys,
    owner: &str,
    events: Option<&[String]>,
) -> Result<bool, Failure> {
    let script = Script::new(include_str!("turn.lua"));
    let mut script = script.prepare_invoke();
    script.key(&keys.turn).key(&keys.checkpoint);
    script.key(&keys.lock).key(&keys.dedup);
    script
        .arg(owner)
        .arg(TURN_LASTS.as_millis().to_string())
        .arg(if events.is_some() { "events" } else { "run" })
        .arg(events.unwrap_or_default());
    Ok(reply_text(&link.run(&script).await?) == "OK")
}

/// Ends a turn without changes.
pub(super) async fn release_turn(link: &mut Link, keys: &Keys, owner: &str) -> Result<(), Failure> {
    let script =
        Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end");
    let mut script = script.prepare_invoke();
    script.key(&keys.turn).arg(owner);
    link.run(&script).await?;
    Ok(())
}

/// Returns what is known besides the chats.
pub(super) async fn load(link: &mut Link, keys: &Keys) -> Result<Stored, Failure> {
    let (note, set): (Option<String>, [Option<String>; 3]) = redis::pipe()
        .cmd("GET")
        .arg(&keys.note)
        .cmd("HMGET")
        .arg(&keys.members)
        .arg(&NO_CHATS)
        .query_async(link.connection().await?)
        .await?;
    let [set, members, events] = set;
    let mut note = note.map(|note| Note::parse(&note)).unwrap_or_default();
    let is_of_a_run = set.as_deref().is_some_and(|set| !is_begun_by_events(set));
    if note == Note::default() && is_of_a_run {
        // The note was lost, and not the members: this is no first use.
        note.trusted = Some(String::new());
    }
    // One that a server has lost may be below zero.
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let members = number(members).unwrap_or(note.members);
    let set = note.adopt(set);
    Ok(Stored {
        note,
        set,
        members,
        events: number(events).unwrap_or(0),
    })
}

/// What a reading uses.
pub(super) struct Uses<'a> {
    /// Who takes the turn, if it is to be taken.
    pub(super) turn_of: Option<&'a str>,
    pub(super) members: bool,
    pub(super) times: bool,
}

/// The result of a reading.
pub(super) struct ReadChats {
    pub(super) took_turn: bool,
    /// Token of the set of members.
    pub(super) set: Option<String>,
    pub(super) known: Vec<Known>,
}

/// Returns what is known of chats, in one exchange. If a turn was to be taken and is not, that is worth
/// nothing.
pub(super) async fn read_chats(
    link: &mut Link,
    keys: &Keys,
    chats: &[String],
    uses: Uses<'_>,
) -> Result<ReadChats, Failure> {
    let mut pipe = redis::pipe();
    // First, so that nobody changes what is read then.
    match uses.turn_of {
        Some(owner) => {
            let lasts = TURN_LASTS.as_millis().to_string();
            pipe.cmd("SET").arg(&keys.turn).arg(owner);
            pipe.arg("NX").arg("PX").arg(lasts)
        }
        None => pipe.cmd("GET").arg(&keys.turn),
    };
    let of = |is_used: bool| if is_used { chats } else { &[] };
    // There is always one field: a command without any is an error.
    pipe.cmd("HMGET").arg(&keys.members).arg("");
    pipe.arg(of(uses.members));
    pipe.cmd("HMGET").arg(&keys.published).arg("");
    pipe.arg(of(uses.times));
    let connection = link.connection().await?;
    let (turn, records, times): (Option<String>, Vec<Option<String>>, Vec<Option<u64>>) =
        pipe.query_async(connection).await?;
    let mut records = records.into_iter();
    let set = records.next().flatten();
    let mut times = times.into_iter().skip(1);
    let mut known = |chat_id: &String| Known {
        chat_id: chat_id.clone(),
        record: records.next().flatten().map(|it| parse_record(&it)),
        published_at: times.next().flatten(),
    };
    Ok(ReadChats {
        took_turn: uses.turn_of.is_some() && turn.is_some(),
        set,
        known: chats.iter().map(&mut known).collect(),
    })
}
