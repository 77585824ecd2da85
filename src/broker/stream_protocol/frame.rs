//! Frames: a length, a key and a version, and the fields of the command. All numbers are big-endian; a
//! text has its length before it, in two bytes.

/// Keys of the commands.
pub(super) mod key {
    pub(crate) const DECLARE_PUBLISHER: u16 = 1;
    pub(crate) const PUBLISH: u16 = 2;
    pub(crate) const PUBLISH_CONFIRM: u16 = 3;
    pub(crate) const PUBLISH_ERROR: u16 = 4;
    pub(crate) const QUERY_PUBLISHER_SEQUENCE: u16 = 5;
    pub(crate) const METADATA: u16 = 15;
    pub(crate) const METADATA_UPDATE: u16 = 16;
    pub(crate) const PEER_PROPERTIES: u16 = 17;
    pub(crate) const SASL_HANDSHAKE: u16 = 18;
    pub(crate) const SASL_AUTHENTICATE: u16 = 19;
    pub(crate) const TUNE: u16 = 20;
    pub(crate) const OPEN: u16 = 21;
    pub(crate) const CLOSE: u16 = 22;
    pub(crate) const HEARTBEAT: u16 = 23;
}

/// Set in the key of a response.
pub(super) const RESPONSE: u16 = 0x8000;
/// The version of all commands.
const VERSION: u16 = 1;
/// The response code of a success.
pub(super) const OK: u16 = 1;
/// The response code for a user without a permission.
pub(super) const ACCESS_REFUSED: u16 = 16;
/// Bytes of the length before a frame.
pub(super) const LENGTH: usize = 4;

/// Writes one frame at the end of a buffer.
pub(super) struct FrameWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> FrameWriter<'a> {
    /// Begins a frame.
    pub(super) fn begin(out: &'a mut Vec<u8>, key: u16) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH]);
        Self { out, start }.u16(key).u16(VERSION)
    }

    pub(super) fn u8(self, value: u8) -> Self {
        self.out.push(value);
        self
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Adds a text. What is over 64 KiB is left out; no name is as long.
    pub(super) fn text(self, text: &str) -> Self {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        let writer = self.u16(length);
        let text = &text.as_bytes()[..usize::from(length)];
        writer.out.extend_from_slice(text);
        writer
    }

    /// Adds bytes with their length in four bytes.
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let writer = self.u32(length);
        writer.out.extend_from_slice(bytes);
        writer
    }

    /// Writes the length of the frame.
    pub(super) fn end(self) {
        let length = self.out.len() - self.start - LENGTH;
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        self.out[self.start..self.start + LENGTH].copy_from_slice(&length);
    }
}

/// The error for a frame that is shorter than its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Truncated;

/// The fields of a frame that was received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Truncated> {
        self.take().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Truncated> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Truncated> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Truncated> {
        self.take().map(u64::from_be_bytes)
    }

    /// A text; one that is missing (length -1) is empty.
    pub(super) fn text(&mut self) -> Result<String, Truncated> {
        let length = match self.u16()? {
            u16::MAX => 0,
            length => usize::from(length),
        };
        let (text, rest) = self.0.split_at_checked(length).ok_or(Truncated)?;
        self.0 = rest;
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

/// Describes a response code, as the protocol names it.
pub(super) fn describe(code: u16) -> String {
    let text = match code {
        2 => "the stream does not exist",
        4 => "the subscription does not exist",
        6 => "the stream is not available",
        7 => "the login method is not supported",
        8 => "the login is refused",
        9 | 10 => "the login has failed",
        11 => "this user may only connect from the broker's own machine",
        12 => "access to the virtual host is refused",
        13 => "the broker does not know the command",
        14 => "the frame is too large",
        15 => "the broker has an internal error",
        16 => "access is refused",
        17 => "a precondition has failed",
        18 => "the publisher does not exist",
        _ => return format!("response code {code}"),
    };
    text.to_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = vec![9];
        FrameWriter::begin(&mut out, key::OPEN)
            .u8(7)
            .u32(70_000)
            .text("ä/vhost")
            .bytes(b"data")
            .end();
        let mut fields = Fields(&out[1..]);
        assert_eq!(fields.u32().unwrap() as usize, out.len() - 1 - LENGTH);
        assert_eq!((fields.u16(), fields.u16()), (Ok(key::OPEN), Ok(1)));
        assert_eq!((fields.u8(), fields.u32()), (Ok(7), Ok(70_000)));
        assert_eq!(fields.text().unwrap(), "ä/vhost");
        assert_eq!((fields.u32(), fields.0), (Ok(4), b"data".as_slice()));
        assert_eq!(Fields(b"abc").u64(), Err(Truncated));
        assert_eq!(Fields(b"\0\x05abc").text(), Err(Truncated));
        assert_eq!(Fields(b"\xff\xff").text(), Ok(String::new()));
    }
}
