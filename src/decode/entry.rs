//! One entry of the list: `{"id": …, "name": …}`, with whatever else an engine adds.

use struson::reader::{JsonReader, ValueType};

use super::list::{Out, Parser, name, position, string, wrap};
use super::{DecodeError, MAX_ENTRY_BYTES};
use crate::batch::MAX_ID_BYTES;

/// Reads entries; the buffers are used again for each.
pub(super) struct EntryReader {
    include_names: bool,
    id: [u8; MAX_ID_BYTES],
    name: Vec<u8>,
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

impl EntryReader {
    pub(super) fn new(include_names: bool) -> Self {
        // An entry with a longer name is over MAX_ENTRY_BYTES.
        let name = if include_names {
            vec![0; usize::try_from(MAX_ENTRY_BYTES).unwrap_or(usize::MAX)]
        } else {
            Vec::new()
        };
        Self {
            include_names,
            id: [0; MAX_ID_BYTES],
            name,
        }
    }

    /// Reads one entry. One that is not what it should be is counted and passed over.
    #[inline]
    pub(super) fn read(
        &mut self,
        parser: &mut Parser<'_, '_>,
        out: &Out<'_>,
    ) -> Result<(), DecodeError> {
        if wrap(parser, |p| p.peek())? != ValueType::Object {
            wrap(parser, |p| p.skip_value())?;
            return out.borrow_mut().invalid();
        }
        let start = position(parser);
        let (id, name) = self.members(parser)?;
        if position(parser) - start > MAX_ENTRY_BYTES {
            return out.borrow_mut().invalid();
        }
        let Found::Text(length @ 1..) = id else {
            return out.borrow_mut().invalid();
        };
        let name = match name {
            _ if !self.include_names => None,
            Found::Text(length @ 1..) => Some(Some(&self.name[..length])),
            _ => Some(None),
        };
        out.borrow_mut().chat(&self.id[..length], name)
    }

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
                // All that is wanted was found: the rest is passed over without being held.
                wrap(parser, |p| p.skip_name())?;
                wrap(parser, |p| p.skip_value())?;
                continue;
            }
            let member = name(parser, |name| match name {
                "id" => Member::Id,
                "name" => Member::Name,
                _ => Member::Other,
            })?;
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

    /// An id is a string, or an object with `_serialized` in it.
    #[inline]
    fn id(&mut self, parser: &mut Parser<'_, '_>) -> Result<Found, DecodeError> {
        match wrap(parser, |p| p.peek())? {
            ValueType::String => fitting(string(parser, &mut self.id)),
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

/// What a string that may not have fitted comes to.
#[inline]
fn fitting(string: Result<Option<usize>, DecodeError>) -> Result<Found, DecodeError> {
    Ok(string?.map_or(Found::Unusable, Found::Text))
}

/// A string into `buf`; any other value, or a string that does not fit, is passed over.
#[inline]
fn text(parser: &mut Parser<'_, '_>, buf: &mut [u8]) -> Result<Found, DecodeError> {
    if wrap(parser, |p| p.peek())? != ValueType::String {
        wrap(parser, |p| p.skip_value())?;
        return Ok(Found::Unusable);
    }
    fitting(string(parser, buf))
}
