//! One chat of a list: `{"id": …, "name": …}`, and whatever else an engine adds.

use struson::reader::{JsonReader, ValueType};

use super::envelope::Envelope;
use super::list::{Candidate, Entries};
use super::members::Kind;
use super::parse::{Parser, name, string, wrap};
use super::{DecodeError, Out};
use crate::batch::MAX_ID_BYTES;

/// The maximum length of a chat's name, in bytes. A longer name is dropped.
const MAX_NAME_BYTES: usize = 64 * 1024;

/// Reads chats and passes them to the output. Its buffers are reused for each chat.
pub(super) struct ChatEntries<'o, 'p> {
    out: &'o Out<'p>,
    include_names: bool,
    id: [u8; MAX_ID_BYTES],
    name: Vec<u8>,
}

/// A chat that is held until it is known whether it is an entry.
pub(super) struct HeldChat {
    id: Vec<u8>,
    name: Option<Option<Vec<u8>>>,
}

#[derive(Clone, Copy)]
enum Found {
    Nothing,
    Unusable,
    Text(usize),
}

impl Found {
    fn is_nothing(self) -> bool {
        matches!(self, Self::Nothing)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Id,
    Name,
    Other,
}

impl<'o, 'p> ChatEntries<'o, 'p> {
    pub(super) fn new(include_names: bool, out: &'o Out<'p>) -> Self {
        let name = if include_names {
            vec![0; MAX_NAME_BYTES]
        } else {
            Vec::new()
        };
        Self {
            out,
            include_names,
            id: [0; MAX_ID_BYTES],
            name,
        }
    }

    fn name_of(&self, found: Found) -> Option<Option<&[u8]>> {
        match found {
            _ if !self.include_names => None,
            Found::Text(length @ 1..) => Some(Some(&self.name[..length])),
            _ => Some(None),
        }
    }
}

impl Entries for ChatEntries<'_, '_> {
    type Held = HeldChat;

    #[inline]
    fn read(&mut self, parser: &mut Parser<'_, '_>) -> Result<bool, DecodeError> {
        if wrap(parser, |p| p.peek())? != ValueType::Object {
            wrap(parser, |p| p.skip_value())?;
            return self.out.borrow_mut().invalid().map(|()| false);
        }
        let (id, name) = self.members(parser)?;
        match id {
            Found::Text(length) if is_chat_id(&self.id[..length]) => {
                let name = self.name_of(name);
                let id = &self.id[..length];
                self.out.borrow_mut().chat(id, name).map(|()| true)
            }
            _ => self.out.borrow_mut().invalid().map(|()| false),
        }
    }

    fn read_maybe(
        &mut self,
        parser: &mut Parser<'_, '_>,
        kind: Kind,
        envelope: &mut Envelope,
    ) -> Result<Candidate<HeldChat>, DecodeError> {
        let (mut id, mut chat_name) = (Found::Nothing, Found::Nothing);
        wrap(parser, |p| p.begin_object())?;
        while wrap(parser, |p| p.has_next())? {
            let (member, other) = name(parser, |name| {
                envelope.enter_within(name);
                (Member::of(name), Kind::of(name))
            })?;
            match member {
                Member::Id if id.is_nothing() => id = self.id(parser)?,
                Member::Name if chat_name.is_nothing() => {
                    chat_name = text(parser, &mut self.name)?;
                }
                _ => envelope.read_within(parser, kind, other)?,
            }
        }
        wrap(parser, |p| p.end_object())?;
        Ok(match id {
            Found::Text(length) if is_chat_id(&self.id[..length]) => Candidate::Entry(HeldChat {
                id: self.id[..length].to_vec(),
                name: self.name_of(chat_name).map(|name| name.map(<[u8]>::to_vec)),
            }),
            Found::Nothing if chat_name.is_nothing() => Candidate::Other,
            _ => Candidate::Broken,
        })
    }

    fn take(&mut self, held: Option<HeldChat>) -> Result<(), DecodeError> {
        let mut out = self.out.borrow_mut();
        match held {
            Some(chat) => out.chat(&chat.id, chat.name.as_ref().map(|name| name.as_deref())),
            None => out.invalid(),
        }
    }

    fn count(&self) -> u64 {
        self.out.borrow().batch.end()
    }
}

impl ChatEntries<'_, '_> {
    #[inline]
    fn members(&mut self, parser: &mut Parser<'_, '_>) -> Result<(Found, Found), DecodeError> {
        let mut id = Found::Nothing;
        let mut chat_name = if self.include_names {
            Found::Nothing
        } else {
            Found::Unusable
        };
        wrap(parser, |p| p.begin_object())?;
        while wrap(parser, |p| p.has_next())? {
            if !id.is_nothing() && !chat_name.is_nothing() {
                // Everything needed was found: skip the rest without holding it.
                wrap(parser, |p| p.skip_name())?;
                wrap(parser, |p| p.skip_value())?;
                continue;
            }
            let member = name(parser, Member::of)?;
            match member {
                Member::Id if id.is_nothing() => id = self.id(parser)?,
                Member::Name if chat_name.is_nothing() => {
                    chat_name = text(parser, &mut self.name)?;
                }
                _ => wrap(parser, |p| p.skip_value())?,
            }
        }
        wrap(parser, |p| p.end_object())?;
        Ok((id, chat_name))
    }

    /// Reads an id: a string, or an object that has it as `_serialized`.
    #[inline]
    fn id(&mut self, parser: &mut Parser<'_, '_>) -> Result<Found, DecodeError> {
        match wrap(parser, |p| p.peek())? {
            ValueType::String => found_text(string(parser, &mut self.id)),
            ValueType::Object => self.id_in_object(parser),
            _ => wrap(parser, |p| p.skip_value()).map(|()| Found::Unusable),
        }
    }

    fn id_in_object(&mut self, parser: &mut Parser<'_, '_>) -> Result<Found, DecodeError> {
        let mut found = Found::Nothing;
        wrap(parser, |p| p.begin_object())?;
        while wrap(parser, |p| p.has_next())? {
            let is_serialized = name(parser, |name| name == "_serialized")?;
            if is_serialized && found.is_nothing() {
                found = text(parser, &mut self.id)?;
            } else {
                wrap(parser, |p| p.skip_value())?;
            }
        }
        wrap(parser, |p| p.end_object())?;
        Ok(match found {
            Found::Nothing => Found::Unusable,
            found => found,
        })
    }
}

/// Converts a string that may have been too long for its buffer.
#[inline]
fn found_text(string: Result<Option<usize>, DecodeError>) -> Result<Found, DecodeError> {
    Ok(string?.map_or(Found::Unusable, Found::Text))
}

/// Reads a string into `buf`. Skips any other value, and a string that does not fit.
#[inline]
fn text(parser: &mut Parser<'_, '_>, buf: &mut [u8]) -> Result<Found, DecodeError> {
    if wrap(parser, |p| p.peek())? != ValueType::String {
        wrap(parser, |p| p.skip_value())?;
        return Ok(Found::Unusable);
    }
    found_text(string(parser, buf))
}

impl Member {
    #[inline]
    fn of(name: &str) -> Self {
        match name {
            "id" => Self::Id,
            "name" => Self::Name,
            _ => Self::Other,
        }
    }
}

/// The contribution of each byte to the sum in [`is_chat_id`].
static WEIGHTS: [u32; 256] = {
    let mut weights = [DISALLOWED; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        weights[byte as usize] = 0;
        byte += 1;
    }
    weights[b'@' as usize] = 1;
    weights
};
/// The weight of a space, a control character or a non-ASCII byte. It exceeds the length of any id.
const DISALLOWED: u32 = 1 << 16;

/// Returns whether a text is a chat id: `user@server`, without white space and control characters.
///
/// This runs once per chat. A table needs the fewest instructions.
#[inline]
pub(super) fn is_chat_id(id: &[u8]) -> bool {
    let sum: u32 = id.iter().map(|byte| WEIGHTS[usize::from(*byte)]).sum();
    sum % DISALLOWED == 1
        && !id.starts_with(b"@")
        && !id.ends_with(b"@")
        && (sum == 1 || has_no_space(id))
}

/// Checks an id with non-ASCII characters for spaces, control and invisible characters.
#[cold]
fn has_no_space(id: &[u8]) -> bool {
    let is_invisible = |c: char| matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    let is_space = |c: char| c.is_whitespace() || c.is_control() || is_invisible(c);
    str::from_utf8(id).is_ok_and(|id| !id.contains(is_space))
}

#[cfg(test)]
mod tests {
    use super::is_chat_id;

    #[test]
    fn a_chat_id_has_a_user_and_a_server() {
        for id in [
            "4915112345678@c.us",
            "12:3@lid",
            "4915112345678-14@g.us",
            "status@broadcast",
            "120363@newsletter",
            "1@s.whatsapp.net",
            "zoë@c.us",
        ] {
            assert!(is_chat_id(id.as_bytes()), "{id}");
        }
        for id in [
            "",
            "  ",
            "1",
            "@",
            "@c.us",
            "1@",
            "[object Object]",
            "1 @c.us",
            "1@c.us ",
            "1@c.us,2@c.us",
            "1@c.us\n",
            "1\u{a0}2@c.us",
            "1\u{200b}@c.us",
        ] {
            assert!(!is_chat_id(id.as_bytes()), "{id}");
        }
    }
}
