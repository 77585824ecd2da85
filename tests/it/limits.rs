//! Memory stays flat for any body. Measured as the peak of the process while it waits for the rest
//! of the body.

use std::sync::OnceLock;

use bytes::Bytes;
use labelcast::mock::{Piece, Reply};

use crate::support::{Process, Stage, lines_in, part_of, small_list, wait_until};

/// The allowed increase over an ordinary list, in KiB, for a window or a buffer that has grown.
/// Each of these bodies is larger.
const MORE_KIB: u64 = 9 * 1024;

/// Checks that a process has not used much more memory than for an ordinary list.
#[track_caller]
fn is_flat(process: &Process) {
    static ORDINARY: OnceLock<u64> = OnceLock::new();
    let ordinary = *ORDINARY.get_or_init(|| {
        let (_, body) = small_list(10_000);
        let stage = Stage::with_body(&body);
        let most = part_of(&body, 0.99, Piece::Hold);
        stage.mock.script("1", most);
        let process = stage.run().args(["--include-names"]).spawn();
        wait_until("most is decoded", || lines_in(&stage.out()) > 9000);
        process.peak_memory()
    });
    let peak = process.peak_memory();
    assert!(
        peak < ordinary + MORE_KIB,
        "{peak} KiB, {ordinary} otherwise"
    );
}

/// A piece that is sent repeatedly.
fn repeated(bytes: impl Into<Bytes>, times: usize) -> impl Iterator<Item = Piece> {
    std::iter::repeat_n(Piece::Bytes(bytes.into()), times)
}

fn piece(text: &str) -> impl Iterator<Item = Piece> {
    std::iter::once(Piece::Bytes(Bytes::copy_from_slice(text.as_bytes())))
}

/// A MiB of one byte.
fn of(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 1024 * 1024])
}

/// Runs over an entry in pieces, with ordinary entries around it, and checks the peak memory before
/// the end of the body.
#[track_caller]
fn flat_over(entry: impl IntoIterator<Item = Piece>, invalid: u64) {
    let pieces: Vec<Piece> = piece(r#"[{"id":"1@c.us"},"#)
        .chain(entry)
        .chain(piece(r#",{"id":"2@c.us"}"#))
        .chain([Piece::Hold])
        .collect();
    let stage = Stage::with_chats(0);
    stage.mock.script("1", Reply::pieces(pieces));
    let process = stage.run().args(["--include-names"]).spawn();
    let last = "\"2@c.us\"";
    wait_until("the body was decoded", || {
        std::fs::read_to_string(stage.out()).is_ok_and(|text| text.contains(last))
    });
    is_flat(&process);
    process.signal("TERM");
    let ended = process.end().expect(75);
    assert_eq!(ended.label()["invalid"], invalid);
    assert_eq!(ended.label()["read"], 3);
}

#[test]
fn memory_is_flat_for_an_id_of_10_mib() {
    let id = piece(r#"{"id":""#)
        .chain(repeated(of(b'9'), 10))
        .chain(piece(r#"@c.us"}"#));
    flat_over(id, 1);
}

#[test]
fn memory_is_flat_for_an_id_of_10_mib_in_an_object() {
    let id = piece(r#"{"id":{"_serialized":""#)
        .chain(repeated(of(b'9'), 10))
        .chain(piece(r#""}}"#));
    flat_over(id, 1);
}

#[test]
fn memory_is_flat_for_a_name_of_100_mib() {
    let name = piece(r#"{"id":"x@c.us","name":""#)
        .chain(repeated(of(b'n'), 100))
        .chain(piece(r#""}"#));
    flat_over(name, 0);
}

#[test]
fn memory_is_flat_for_a_million_unknown_members() {
    let members = r#""unknown":[1,{"x":null}],"#.repeat(1000);
    let entry = piece("{")
        .chain(repeated(members, 1000))
        .chain(piece(r#""id":"x@c.us"}"#));
    flat_over(entry, 0);
}

#[test]
fn memory_is_flat_for_large_members_beside_the_list() {
    let objects = r#"{"id":"9@c.us","x":[null]},"#.repeat(1000);
    let pieces = piece(r#"{"text":""#)
        .chain(repeated(of(b't'), 100))
        .chain(piece(r#"","objects":["#))
        .chain(repeated(objects, 1000))
        .chain(piece(r#"0],"data":[{"id":"1@c.us"},{"id":"2@c.us"}"#))
        .chain([Piece::Hold]);
    let stage = Stage::with_chats(0);
    stage.mock.script("1", Reply::pieces(pieces));
    let process = stage.run().spawn();
    wait_until("the list was decoded", || lines_in(&stage.out()) == 2);
    is_flat(&process);
    process.signal("TERM");
    process.end().expect(75);
}

#[test]
fn memory_is_flat_for_10_000_levels_of_nesting() {
    let nested = format!(
        r#"{{"x":{}{},"id":"x@c.us"}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    flat_over(piece(&nested), 0);
}

#[test]
fn memory_is_flat_for_100_mib_of_white_space() {
    let spaces = repeated(of(b' '), 100).chain(piece(r#"{"id":"x@c.us"}"#));
    flat_over(spaces, 0);
}

#[test]
fn memory_is_flat_for_a_number_of_100_mib() {
    let number = piece(r#"{"x":"#)
        .chain(repeated(of(b'7'), 100))
        .chain(piece(r#","id":"x@c.us"}"#));
    flat_over(number, 0);
}

#[test]
fn endless_nesting_is_refused() {
    let stage = Stage::with_chats(0);
    let pieces = piece("[{\"x\":").chain(repeated(of(b'['), 10));
    stage.mock.script("1", Reply::pieces(pieces));
    let ended = stage.run().end().expect(65);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains("nested deeper"), "{error}");
}

#[test]
fn an_endless_member_name_is_refused() {
    for body in ["[{\"", "{\"", "[{\"id\":{\""] {
        let stage = Stage::with_chats(0);
        let pieces = piece(body).chain(repeated(of(b'n'), 10));
        stage.mock.script("1", Reply::pieces(pieces));
        let ended = stage.run().end().expect(65);
        let error = ended.label()["error"].as_str().unwrap();
        assert!(error.contains("64 KiB"), "{error}");
    }
}

#[test]
fn memory_is_flat_for_a_gzip_bomb() {
    use async_compression::tokio::write::GzipEncoder;
    use tokio::io::AsyncWriteExt;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let bomb = runtime.block_on(async {
        let mut encoder = GzipEncoder::new(Vec::new());
        encoder
            .write_all(b"[{\"id\":\"1@c.us\",\"name\":\"")
            .await
            .unwrap();
        for _ in 0..500 {
            encoder.write_all(&of(b'n')).await.unwrap();
        }
        encoder.write_all(b"\"},{\"id\":\"2@c.us\"}").await.unwrap();
        encoder.flush().await.unwrap();
        encoder.into_inner()
    });
    assert!(bomb.len() < 1024 * 1024);
    let stage = Stage::with_chats(0);
    let pieces = [Piece::Bytes(Bytes::from(bomb)), Piece::Hold];
    let reply = Reply::pieces(pieces).header("content-encoding", "gzip");
    stage.mock.script("1", reply);
    let process = stage.run().spawn();
    wait_until("the body was decompressed", || lines_in(&stage.out()) == 2);
    is_flat(&process);
}

#[test]
fn an_endless_error_response_is_cut_off() {
    let stage = Stage::with_chats(0);
    let pieces = repeated(of(b'x'), 20).chain([Piece::Hold]);
    stage.mock.script("1", Reply::pieces(pieces).status(400));
    let ended = stage.run().end().expect(76);
    assert!(ended.label()["error"].as_str().unwrap().len() < 1000);
}

#[test]
fn a_compression_window_that_is_too_large_is_refused() {
    // The first bytes of a brotli stream with a window of 1 GiB.
    let stage = Stage::with_chats(0);
    let reply = Reply::json(vec![0x11, 0x1e, 0, 0]).header("content-encoding", "br");
    stage.mock.script("1", reply);
    let ended = stage.run().end().expect(76);
    assert!(
        ended.label()["error"]
            .as_str()
            .unwrap()
            .contains("large window")
    );
}
