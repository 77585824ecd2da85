//! The shapes of a body: a map of entries, an array, `{}`, `[]`, or one of these inside an
//! envelope.
//!
//! One loop reads both envelope members and entries, because some senders put `"success": true`
//! right beside `"0": {…}`.

use struson::reader::{JsonReader, ValueType};

use super::envelope::Envelope;
use super::input::Input;
use super::members::Kind;
use super::paging::Paging;
use super::parse::{Parser, name, parser, position, wrap};
use super::{DecodeError, Trust};

/// The entries of a list: chats or labels.
pub(super) trait Entries {
    /// An entry that was read and is held for later.
    type Held;

    /// Reads and adds a value that is an entry or stands in the place of one. Returns whether the
    /// entry is valid.
    fn read(&mut self, parser: &mut Parser<'_, '_>) -> Result<bool, DecodeError>;

    /// Reads an object that may be an entry. `kind` is the kind of its name. Members that are not
    /// part of an entry go to the envelope.
    fn read_maybe(
        &mut self,
        parser: &mut Parser<'_, '_>,
        kind: Kind,
        envelope: &mut Envelope,
    ) -> Result<Candidate<Self::Held>, DecodeError>;

    /// Adds an entry that was held. `None` is an invalid entry.
    fn take(&mut self, held: Option<Self::Held>) -> Result<(), DecodeError>;

    /// Returns the number of entries that were added, valid or not.
    fn count(&self) -> u64;
}

/// The outcome of reading an object that may be an entry.
pub(super) enum Candidate<H> {
    /// An entry.
    Entry(H),
    /// A damaged entry: it has an unusable id, or a name and no id.
    Broken,
    /// Not an entry.
    Other,
}

/// The maximum number of objects with unknown names that are held until it is clear whether they
/// are entries. An envelope has fewer members.
const MAX_HELD: usize = 16;

/// Reads a whole body and checks that it is complete. `paging` contains what its headers say about
/// pages.
///
/// If [`Trust::ignore_paging`] accepts a list that is one page of several, returns the reason why
/// it is one.
pub(super) fn read_body<E: Entries>(
    input: &mut Input<'_>,
    entries: &mut E,
    trust: Trust,
    paging: Paging,
) -> Result<Option<String>, DecodeError> {
    let first = input.open()?;
    let mut body = Body {
        parser: parser(input),
        entries,
        envelope: Envelope::new(paging),
        trust,
        is_ruled_out: false,
        is_list: false,
        skipped_entries: false,
        place: ListPlace::Unknown { held: Vec::new() },
    };
    body.is_ruled_out = body.rules_out_list();
    match first {
        b'[' => body.array()?,
        b'{' => body.object(Level::Body)?,
        _ => return Err(DecodeError::NotAList(input.beginning())),
    }
    let Body {
        parser,
        envelope,
        is_list,
        skipped_entries,
        ..
    } = body;
    let at = position(&parser);
    let end = parser.consume_trailing_whitespace();
    end.map_err(|_| input.explain(at, || "something follows the end of the list".to_owned()))?;
    let found = Found {
        is_list,
        skipped_entries,
        entries: entries.count(),
        at: input.position(at),
    };
    verdict(envelope, &found, trust)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Body,
    Data,
}

/// A member of an object that may be the list.
enum Member {
    /// An entry, judging by its key: an index or a chat id.
    Entry,
    Data,
    Other(Kind),
}

impl Member {
    #[inline]
    fn of(name: &str) -> Self {
        let is_index = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        if is_index {
            Self::Entry
        } else {
            Self::of_text(name)
        }
    }

    #[cold]
    fn of_text(name: &str) -> Self {
        let is_number = |byte: u8| byte.is_ascii_digit() || byte == b'-';
        let starts_with_digit = name.starts_with(|c: char| c.is_ascii_digit());
        match name {
            "data" => Self::Data,
            // A group's id without its server, as in `4915112345678-14`.
            name if starts_with_digit && name.bytes().all(is_number) => Self::Entry,
            name if name.contains('@') && !name.starts_with('@') => Self::Entry,
            name => Self::Other(Kind::of(name)),
        }
    }
}

struct Body<'i, 's, 'e, E: Entries> {
    parser: Parser<'i, 's>,
    entries: &'e mut E,
    envelope: Envelope,
    trust: Trust,
    /// Whether the members read so far rule the list out.
    is_ruled_out: bool,
    /// Whether a list was found, even an empty one.
    is_list: bool,
    /// Whether entries were skipped because the list is ruled out.
    skipped_entries: bool,
    place: ListPlace<E::Held>,
}

/// The position of the list, as far as it is known.
enum ListPlace<H> {
    /// Not known yet. Objects with unknown names are held: they may be entries.
    Unknown { held: Vec<Option<H>> },
    /// The body itself is the map of entries.
    Body,
    /// The list is in `data`. Members beside it are not entries.
    Data,
}

impl<E: Entries> Body<'_, '_, '_, E> {
    fn rules_out_list(&self) -> bool {
        let is_page = !self.trust.ignore_paging && self.envelope.paging.is_one_of_several();
        is_page || self.envelope.answer.is_error()
    }

    fn array(&mut self) -> Result<(), DecodeError> {
        self.is_list = true;
        wrap(&mut self.parser, |p| p.begin_array())?;
        if self.is_ruled_out {
            while wrap(&mut self.parser, |p| p.has_next())? {
                self.skip_entry()?;
            }
        } else {
            while wrap(&mut self.parser, |p| p.has_next())? {
                self.entries.read(&mut self.parser)?;
            }
        }
        wrap(&mut self.parser, |p| p.end_array())
    }

    fn object(&mut self, level: Level) -> Result<(), DecodeError> {
        wrap(&mut self.parser, |p| p.begin_object())?;
        let mut is_empty = true;
        while wrap(&mut self.parser, |p| p.has_next())? {
            is_empty = false;
            let envelope = &mut self.envelope;
            let member = name(&mut self.parser, |name| {
                let member = Member::of(name);
                if let Member::Other(_) = member {
                    envelope.enter(name);
                }
                member
            })?;
            match member {
                Member::Entry => self.entry(level)?,
                Member::Data if level == Level::Body => self.data()?,
                Member::Data => {
                    self.envelope.enter("data");
                    self.other(level, Kind::Unknown)?;
                }
                Member::Other(kind) => self.other(level, kind)?,
            }
        }
        if level == Level::Body {
            self.end_of_body()?;
        }
        self.is_list |= is_empty;
        wrap(&mut self.parser, |p| p.end_object())
    }

    #[inline]
    fn entry(&mut self, level: Level) -> Result<(), DecodeError> {
        self.is_list = true;
        if self.is_ruled_out {
            return self.skip_entry();
        }
        if level == Level::Body && matches!(self.place, ListPlace::Unknown { .. }) {
            self.begin_map()?;
        }
        self.entries.read(&mut self.parser).map(drop)
    }

    fn skip_entry(&mut self) -> Result<(), DecodeError> {
        self.skipped_entries = true;
        wrap(&mut self.parser, |p| p.skip_value())
    }

    fn data(&mut self) -> Result<(), DecodeError> {
        let kind = wrap(&mut self.parser, |p| p.peek())?;
        if !matches!(kind, ValueType::Array | ValueType::Object) {
            return wrap(&mut self.parser, |p| p.skip_value());
        }
        if let ListPlace::Unknown { held } = &self.place {
            // The held objects turned out to be beside the list.
            if held.iter().any(Option::is_some) {
                self.envelope.note_doubt("(an object with an id)");
            }
            self.place = ListPlace::Data;
        }
        match kind {
            ValueType::Array => self.array(),
            _ => self.object(Level::Data),
        }
    }

    /// Reads a member whose key does not identify it as an entry.
    fn other(&mut self, level: Level, kind: Kind) -> Result<(), DecodeError> {
        let is_in_list = level == Level::Data || matches!(self.place, ListPlace::Body);
        // Within the list, an object with an id is an entry, whatever its key.
        let may_be_entry = match level {
            Level::Data => true,
            Level::Body => kind != Kind::Identity && !matches!(self.place, ListPlace::Data),
        };
        let is_object = wrap(&mut self.parser, |p| p.peek())? == ValueType::Object;
        if !is_object || !may_be_entry || (self.is_ruled_out && !is_in_list) {
            return self.beside(kind, is_in_list);
        }
        if self.is_ruled_out {
            return self.skip_entry();
        }
        let found = self
            .entries
            .read_maybe(&mut self.parser, kind, &mut self.envelope)?;
        self.is_ruled_out = self.rules_out_list();
        let found = match found {
            Candidate::Entry(entry) => Some(entry),
            Candidate::Broken if kind == Kind::Unknown => None,
            Candidate::Broken | Candidate::Other => return Ok(()),
        };
        if is_in_list {
            self.is_list |= found.is_some();
            return self.entries.take(found);
        }
        if let ListPlace::Unknown { held } = &mut self.place {
            held.push(found);
            if held.len() == MAX_HELD {
                self.begin_map()?;
            }
        }
        Ok(())
    }

    /// Reads a member that is not an entry by itself. A member within the list that contains an id
    /// counts as an invalid entry.
    fn beside(&mut self, kind: Kind, is_in_list: bool) -> Result<(), DecodeError> {
        self.envelope.saw_chat_id = false;
        self.envelope.read(&mut self.parser, kind)?;
        self.is_ruled_out = self.rules_out_list();
        let holds_id = kind == Kind::Unknown && self.envelope.saw_chat_id;
        if is_in_list && holds_id && !self.is_ruled_out {
            return self.entries.take(None);
        }
        Ok(())
    }

    /// Adds the held objects at the end of the body if one of them is a valid entry.
    fn end_of_body(&mut self) -> Result<(), DecodeError> {
        match &self.place {
            ListPlace::Unknown { held } if held.iter().any(Option::is_some) => self.begin_map(),
            _ => Ok(()),
        }
    }

    /// Decides that the body itself is the map and adds the held entries.
    fn begin_map(&mut self) -> Result<(), DecodeError> {
        let ListPlace::Unknown { held } = &mut self.place else {
            return Ok(());
        };
        let held = std::mem::take(held);
        self.place = ListPlace::Body;
        self.is_list |= held.iter().any(Option::is_some);
        if self.is_ruled_out {
            self.skipped_entries |= !held.is_empty();
            return Ok(());
        }
        for entry in held {
            self.entries.take(entry)?;
        }
        Ok(())
    }
}

/// A summary of what a body contained.
struct Found {
    is_list: bool,
    skipped_entries: bool,
    entries: u64,
    /// The position of its end.
    at: u64,
}

/// Decides whether the list can be used, considering everything beside it.
fn verdict(envelope: Envelope, found: &Found, trust: Trust) -> Result<Option<String>, DecodeError> {
    let why_page = envelope.paging.why(found.entries);
    let answer = envelope.into_answer();
    if !found.is_list {
        if answer.replaces_list() {
            return Err(DecodeError::Answered(Box::new(answer)));
        }
        return Err(DecodeError::Shape {
            at: found.at,
            what: "the object contains no list",
        });
    }
    let is_empty = found.entries == 0 && !found.skipped_entries;
    if answer.is_error() && !is_empty {
        return Err(DecodeError::Answered(Box::new(answer)));
    }
    if let Some(why) = &why_page
        && !trust.ignore_paging
    {
        return Err(DecodeError::Page(why.clone()));
    }
    let is_doubtful = answer.is_error() || answer.is_doubtful;
    if is_empty && is_doubtful && !trust.accept_empty {
        return Err(DecodeError::UntrustedEmpty(Box::new(answer)));
    }
    Ok(why_page)
}
