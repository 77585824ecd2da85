//! Content codings with padding, and headers that name no coding.

use async_compression::tokio::write::GzipEncoder;
use labelcast::mock::Reply;
use tokio::io::AsyncWriteExt;

use super::{Case, TWO, TWO_IDS};

fn gzip(text: &str) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut encoder = GzipEncoder::new(Vec::new());
        encoder.write_all(text.as_bytes()).await.unwrap();
        encoder.shutdown().await.unwrap();
        encoder.into_inner()
    })
}

fn coded(coding: &str, body: Vec<u8>) -> Reply {
    Reply::json(body).header("content-encoding", coding)
}

#[test]
fn zeros_after_a_gzip_member_are_ignored() {
    let whole = gzip(TWO);
    for zeros in [1, 20, 100_000] {
        let padded = [whole.clone(), vec![0; zeros]].concat();
        Case::reply(coded("gzip", padded), 0)
            .named("padded")
            .ids(TWO_IDS)
            .holds();
    }
    let (start, end) = TWO.split_at(10);
    let members = [gzip(start), vec![0; 9], gzip(end), vec![0; 9]].concat();
    Case::reply(coded("x-gzip", members), 0)
        .named("two members")
        .ids(TWO_IDS)
        .holds();
    let followed = [whole, vec![0; 9], b"more".to_vec()].concat();
    let case = Case::reply(coded("gzip", followed.clone()), 69).named("followed");
    let case = case
        .then(coded("gzip", followed.clone()))
        .then(coded("gzip", followed));
    case.ids(TWO_IDS).says("something follows").holds();
}

#[test]
fn a_wrong_content_encoding_header_is_reported() {
    for coding in ["gzip", "zstd", "br"] {
        let reply = coded(coding, TWO.as_bytes().to_vec());
        let case = Case::reply(reply, 65).says(format!("is not {coding}"));
        case.never("cut off").never("trying again").holds();
    }
}

#[test]
fn a_content_encoding_header_without_a_coding_is_ignored() {
    for coding in ["none", "utf-8", "identity, identity", ""] {
        let reply = coded(coding, TWO.as_bytes().to_vec());
        Case::reply(reply, 0).ids(TWO_IDS).holds();
    }
    Case::reply(coded("gzip, identity", gzip(TWO)), 0)
        .named("one of two")
        .ids(TWO_IDS)
        .holds();
}
