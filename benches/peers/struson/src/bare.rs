//! The minimum work with struson that yields the chat ids of a list.

use std::hint::black_box;

use struson::reader::{JsonReader, JsonStreamReader, ReaderError, ReaderSettings};

/// Reads each chat id of a list in the map shape. Returns their number.
pub(crate) fn chats(list: &[u8]) -> Result<u64, Box<dyn std::error::Error>> {
    let settings = ReaderSettings {
        track_path: false,
        ..ReaderSettings::default()
    };
    let mut json = JsonStreamReader::new_custom(list, settings);
    let mut chats = 0;
    json.begin_object()?;
    while json.has_next()? {
        json.skip_name()?;
        chats += u64::from(has_id(&mut json)?);
    }
    json.end_object()?;
    json.consume_trailing_whitespace()?;
    Ok(chats)
}

fn has_id(json: &mut JsonStreamReader<&[u8]>) -> Result<bool, ReaderError> {
    let mut found = false;
    json.begin_object()?;
    while json.has_next()? {
        if !found && json.next_name()? == "id" {
            black_box(json.next_str()?);
            found = true;
        } else if found {
            json.skip_name()?;
            json.skip_value()?;
        } else {
            json.skip_value()?;
        }
    }
    json.end_object()?;
    Ok(found)
}
