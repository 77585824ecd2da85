//! Messages in the encoding of AMQP 1.0, which consumers of every protocol can read.
//!
//! [Types](https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-types-v1.0-os.html) and
//! [message format](https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-messaging-v1.0-os.html).
//! The kind of a message becomes the property `type` of AMQP 0-9-1. RabbitMQ before 4.0 takes it from an
//! application property, and later versions from an annotation.

/// Codes of the sections of a message.
const ANNOTATIONS: u8 = 0x72;
const PROPERTIES: u8 = 0x73;
const APPLICATION_PROPERTIES: u8 = 0x74;
const DATA: u8 = 0x75;
/// Codes of values.
const NULL: u8 = 0x40;
const SMALL_BINARY: u8 = 0xa0;
const SMALL_TEXT: u8 = 0xa1;
const SMALL_SYMBOL: u8 = 0xa3;
const BINARY: u8 = 0xb0;
const SMALL_LIST: u8 = 0xc0;
const SMALL_MAP: u8 = 0xc1;
const LIST: u8 = 0xd0;
/// The name of the kind, in both places.
const KIND: &[u8] = b"x-basic-type";
/// Fields of the properties: the message id is the first one and the content type the seventh.
const FIELDS: u8 = 7;
const NULLS: [u8; 5] = [NULL; 5];

/// What the messages of a kind have in common, encoded.
pub(in crate::broker) struct MessageParts {
    /// The annotations.
    start: Vec<u8>,
    /// What follows the message id.
    content_type: Vec<u8>,
    /// What stands before the body.
    headers: Vec<u8>,
}

impl MessageParts {
    /// For messages of this kind (the property `type`), with the header `event` if there is one. All
    /// texts are under 100 bytes.
    pub(in crate::broker) fn new(kind: &str, content_type: &str, event: Option<&str>) -> Self {
        let annotation = [(SMALL_SYMBOL, KIND), (SMALL_TEXT, kind.as_bytes())];
        let mut start = Vec::new();
        push_map(&mut start, ANNOTATIONS, &annotation);
        let mut after_id = NULLS.to_vec();
        push_short(&mut after_id, SMALL_SYMBOL, content_type.as_bytes());
        let mut entries = vec![(SMALL_TEXT, KIND), (SMALL_TEXT, kind.as_bytes())];
        if let Some(event) = event {
            entries.extend([
                (SMALL_TEXT, b"event".as_slice()),
                (SMALL_TEXT, event.as_bytes()),
            ]);
        }
        let mut headers = Vec::new();
        push_map(&mut headers, APPLICATION_PROPERTIES, &entries);
        headers.extend_from_slice(&[0, 0x53, DATA]);
        Self {
            start,
            content_type: after_id,
            headers,
        }
    }

    /// Appends a message. Its id is made of two parts, and at most 255 bytes long.
    pub(in crate::broker) fn push(&self, id: [&[u8]; 2], body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.start);
        out.extend_from_slice(&[0, 0x53, PROPERTIES]);
        let id_length = id[0].len() + id[1].len();
        // The number of fields, the id with its code and length, and the rest.
        let size = 1 + 2 + id_length + self.content_type.len();
        match u8::try_from(size) {
            Ok(size) => out.extend_from_slice(&[SMALL_LIST, size, FIELDS]),
            Err(_) => {
                out.push(LIST);
                // Here, the number of fields takes four bytes.
                push_u32(out, size + 3);
                push_u32(out, usize::from(FIELDS));
            }
        }
        out.push(SMALL_TEXT);
        out.push(u8::try_from(id_length).unwrap_or(u8::MAX));
        out.extend_from_slice(id[0]);
        out.extend_from_slice(id[1]);
        out.extend_from_slice(&self.content_type);
        out.extend_from_slice(&self.headers);
        match u8::try_from(body.len()) {
            Ok(length) => out.extend_from_slice(&[SMALL_BINARY, length]),
            Err(_) => {
                out.push(BINARY);
                push_u32(out, body.len());
            }
        }
        out.extend_from_slice(body);
    }
}

fn push_u32(out: &mut Vec<u8>, value: usize) {
    let value = u32::try_from(value).unwrap_or(u32::MAX);
    out.extend_from_slice(&value.to_be_bytes());
}

fn push_short(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    out.extend_from_slice(&[code, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
    out.extend_from_slice(value);
}

/// Appends a section that is a map: names and values in turn, each with its code.
fn push_map(out: &mut Vec<u8>, section: u8, entries: &[(u8, &[u8])]) {
    let mut encoded = Vec::new();
    for (code, value) in entries {
        push_short(&mut encoded, *code, value);
    }
    let short = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    let (size, count) = (short(encoded.len() + 1), short(entries.len()));
    out.extend_from_slice(&[0, 0x53, section, SMALL_MAP, size, count]);
    out.extend_from_slice(&encoded);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_have_their_lengths() {
        let parts = MessageParts::new("t", "c", None);
        let mut out = Vec::new();
        parts.push([b"r:", b"1"], b"{}", &mut out);
        let start = b"\x00\x53\x72\xc1\x12\x02\xa3\x0cx-basic-type\xa1\x01t";
        assert_eq!(&out[..start.len()], start);
        let rest = b"\x00\x53\x73\xc0\x0e\x07\xa1\x03r:1\x40\x40\x40\x40\x40\xa3\x01c\x00\x53\x74\xc1\x12\x02\xa1\x0cx-basic-type\xa1\x01t\x00\x53\x75\xa0\x02{}";
        assert_eq!(&out[start.len()..], rest);
    }

    #[test]
    fn long_ids_and_bodies_have_long_lengths() {
        let parts = MessageParts::new("t", "c", Some("run.started"));
        let mut out = Vec::new();
        parts.push([&[b'r'; 55], &[b'1'; 200]], &[b'x'; 300], &mut out);
        let properties = b"\x00\x53\x73\xd0\x00\x00\x01\x0d\x00\x00\x00\x07\xa1\xff";
        assert!(out.windows(properties.len()).any(|it| it == properties));
        let data = b"\x00\x53\x75\xb0\x00\x00\x01\x2cxxx";
        assert!(out.windows(data.len()).any(|it| it == data));
    }
}
