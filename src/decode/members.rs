//! Classification of the members beside a list, by their names.

use super::paging::PagingMember;

/// The kind of a member beside a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whether the request succeeded: `success`, `ok`, `result`.
    Success,
    /// A code: a number, or words like `rest_no_route`.
    Code,
    /// The status of the request, as a number or in words.
    Status,
    /// The state of the session or of its connection.
    State,
    /// The text of the answer.
    Message,
    /// An error, or a list of errors.
    Error,
    /// Another member that exists only if something failed, like `errorCode` or `expired`.
    Failure,
    /// Another human-readable text, like `detail` or `warnings`.
    Prose,
    /// A flag that is true if everything is in order, like `connected`.
    Health,
    /// A flag that is harmless whether true or false, like `cached`.
    Neutral,
    /// Technical information: the id of the request, a time, a version.
    Technical,
    /// A name that people chose, of the label or the account. It says nothing about the list.
    Name,
    /// The session, account or engine that asks or answers. Such an object is never an entry.
    Identity,
    /// A container of members like those beside the list: `meta`.
    Meta,
    /// A statement about pages.
    Paging(PagingMember),
    /// Anything else.
    Unknown,
}

/// The maximum length of a recognised name, without punctuation. A longer one is [`Kind::Unknown`].
const MAX_KNOWN: usize = 32;

impl Kind {
    /// Returns the kind of a member. Case and punctuation are ignored: `status_code` is
    /// `statusCode`.
    pub(super) fn of(name: &str) -> Self {
        let mut buffer = [0; MAX_KNOWN];
        let Some(normalised) = normalise(name, &mut buffer) else {
            return Self::Unknown;
        };
        match normalised {
            "success" | "successful" | "succeeded" | "issuccess" | "issuccessful" | "ok"
            | "isok" | "result" => Self::Success,
            "code" => Self::Code,
            "status" | "statuscode" | "httpstatus" | "httpstatuscode" | "httpcode"
            | "responsecode" | "resultcode" => Self::Status,
            "state" | "sessionstatus" | "sessionstate" | "connection" | "connectionstatus"
            | "connectionstate" | "instancestatus" | "instancestate" | "enginestatus"
            | "enginestate" | "phonestatus" | "currentstatus" | "currentstate" | "actual" => {
                Self::State
            }
            "message" => Self::Message,
            "error" | "errors" | "exception" | "exceptions" => Self::Error,
            "msg" | "msgs" | "messages" | "detail" | "details" | "reason" | "reasons"
            | "description" | "desc" | "warning" | "warnings" | "title" | "note" | "notes"
            | "notice" | "hint" | "text" | "statustext" | "statusmessage" | "responsemessage"
            | "mensaje" | "mensagem" | "nachricht" | "meldung" | "messaggio" | "pesan"
            | "bericht" | "motivo" | "aviso" => Self::Prose,
            "connected" | "isconnected" | "online" | "isonline" | "ready" | "isready"
            | "active" | "isactive" | "authenticated" | "isauthenticated" | "authorized"
            | "loggedin" | "isloggedin" | "islogged" | "valid" | "isvalid" | "working"
            | "available" | "enabled" | "exists" | "found" | "alive" | "running" | "synced"
            | "paired" | "ispaired" | "linked" | "islinked" => Self::Health,
            "cached" | "iscached" | "fromcache" | "cachehit" | "debug" | "deprecated"
            | "dryrun" | "empty" | "isempty" => Self::Neutral,
            "meta" | "metadata" | "responsemetadata" | "searchmetadata" | "info" | "summary" => {
                Self::Meta
            }
            "session" | "sessionid" | "sessionname" | "instance" | "instanceid"
            | "instancename" | "engine" | "environment" | "me" | "account" | "accountid"
            | "accountname" | "user" | "userid" | "device" | "phone" | "owner" | "profile" => {
                Self::Identity
            }
            "label" | "labelid" | "labelname" | "name" | "pushname" | "displayname" | "path" => {
                Self::Name
            }
            "ts" | "now" | "utc" | "took" | "tookms" | "lastsync" | "created" | "reqid"
            | "traceparent" | "transactionid" | "cfray" | "v" | "build" | "release" | "tier"
            | "method" | "endpoint" | "host" | "hostname" | "server" | "region" | "node"
            | "worker" | "locale" | "lang" | "language" | "jsonrpc" | "request" | "trace" => {
                Self::Technical
            }
            known if is_failure_name(known) => Self::Failure,
            other => match PagingMember::of(other) {
                Some(member) => Self::Paging(member),
                None if is_technical_name(other) || is_time(name) => Self::Technical,
                None => Self::Unknown,
            },
        }
    }
}

/// Returns whether a normalised name is that of a member that exists, or is true, only if something
/// failed.
fn is_failure_name(name: &str) -> bool {
    const PARTS: [&str; 15] = [
        "banned",
        "blocked",
        "denied",
        "disconnected",
        "error",
        "exception",
        "expired",
        "fail",
        "invalid",
        "loggedout",
        "qrcode",
        "stopped",
        "timedout",
        "timeout",
        "unauthor",
    ];
    name.starts_with("err")
        || name.starts_with("fault")
        || name == "qr"
        || PARTS.iter().any(|part| name.contains(part))
}

/// Returns whether a normalised name is that of a time, a version or the id of a request.
fn is_technical_name(name: &str) -> bool {
    const PARTS: [&str; 13] = [
        "correlationid",
        "date",
        "duration",
        "elapsed",
        "latency",
        "logid",
        "operationid",
        "rayid",
        "requestid",
        "requestuuid",
        "spanid",
        "time",
        "traceid",
    ];
    name.ends_with("version") || PARTS.iter().any(|part| name.contains(part))
}

/// Returns whether a name is that of a time, like `cachedAt`.
fn is_time(name: &str) -> bool {
    name.ends_with("At") || name.ends_with("_at")
}

/// Returns a name in lower case, reduced to ASCII letters and digits. Returns `None` if that is too
/// long, or if the name has other letters.
fn normalise<'b>(name: &str, buffer: &'b mut [u8; MAX_KNOWN]) -> Option<&'b str> {
    let mut length = 0;
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() {
            *buffer.get_mut(length)? = byte.to_ascii_lowercase();
            length += 1;
        } else if !byte.is_ascii() {
            return None;
        }
    }
    str::from_utf8(&buffer[..length]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognised_in_any_case_and_punctuation() {
        for (name, kind) in [
            ("statusCode", Kind::Status),
            ("STATUS_CODE", Kind::Status),
            ("isSuccess", Kind::Success),
            ("errors", Kind::Error),
            ("errorCode", Kind::Failure),
            ("timeout", Kind::Failure),
            ("query_time_ms", Kind::Technical),
            ("cachedAt", Kind::Technical),
            ("chat", Kind::Unknown),
            ("me", Kind::Identity),
            ("session_expired", Kind::Failure),
            ("request-id", Kind::Technical),
            ("@odata.nextLink", Kind::Paging(PagingMember::Next)),
            ("X-Total-Count", Kind::Unknown),
            ("has_more", Kind::Paging(PagingMember::HasMore)),
            ("groupMetadata", Kind::Unknown),
            ("сообщение", Kind::Unknown),
            ("", Kind::Unknown),
            ("a-name-that-is-longer-than-any-known-one", Kind::Unknown),
        ] {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
    }
}
