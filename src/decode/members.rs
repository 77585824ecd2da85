//! What the members beside a list are, by their names.

use super::paging::PagingMember;

/// What a member beside a list stands for.
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
    /// Anything else that is only there when something failed, like `errorCode` or `expired`.
    Failure,
    /// Another member that speaks to people, like `detail` or `warnings`.
    Speech,
    /// A flag that is true while all is well, like `connected`.
    Health,
    /// A flag that says nothing either way, like `cached`.
    Neutral,
    /// Something for machines: an id of the request, a time, a version, the session's name.
    Technical,
    /// A container of members like those beside it: `meta`.
    Meta,
    /// Something about pages.
    Paging(PagingMember),
    /// Anything else.
    Unknown,
}

/// The longest name that is recognised, without punctuation. A longer one is [`Kind::Unknown`].
const MAX_KNOWN: usize = 32;

impl Kind {
    /// The kind of a member. Case and punctuation make no difference: `status_code` is `statusCode`.
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
            | "enginestate" | "phonestatus" => Self::State,
            "message" => Self::Message,
            "error" | "errors" | "exception" | "exceptions" => Self::Error,
            "msg" | "msgs" | "messages" | "detail" | "details" | "reason" | "reasons"
            | "description" | "desc" | "warning" | "warnings" | "title" | "note" | "notes"
            | "notice" | "hint" | "text" | "statustext" | "statusmessage" | "responsemessage"
            | "mensaje" | "mensagem" | "nachricht" | "meldung" | "messaggio" | "pesan"
            | "bericht" | "motivo" | "aviso" => Self::Speech,
            "connected" | "isconnected" | "online" | "isonline" | "ready" | "isready"
            | "active" | "isactive" | "authenticated" | "isauthenticated" | "authorized"
            | "loggedin" | "isloggedin" | "valid" | "isvalid" | "working" | "available"
            | "enabled" | "exists" | "found" | "alive" | "running" | "synced" => Self::Health,
            "cached" | "iscached" | "fromcache" | "cachehit" | "debug" | "deprecated"
            | "dryrun" | "empty" | "isempty" => Self::Neutral,
            "meta" | "metadata" | "responsemetadata" | "info" => Self::Meta,
            "timestamp" | "time" | "datetime" | "date" | "ts" | "servertime" | "createdat"
            | "updatedat" | "fetchedat" | "generatedat" | "took" | "tookms" | "elapsed"
            | "elapsedms" | "duration" | "durationms" | "responsetime" | "executiontime"
            | "latency" | "uptime" | "requestid" | "reqid" | "requestuuid" | "xrequestid"
            | "traceid" | "spanid" | "traceparent" | "correlationid" | "transactionid"
            | "cfray" | "version" | "apiversion" | "schemaversion" | "build" | "release"
            | "session" | "sessionid" | "sessionname" | "instance" | "instanceid"
            | "instancename" | "engine" | "environment" | "tier" | "me" | "account"
            | "accountid" | "accountname" | "user" | "userid" | "label" | "labelid"
            | "labelname" | "path" | "method" | "endpoint" | "host" | "hostname" | "server"
            | "region" | "node" | "worker" | "locale" | "lang" | "language" | "timezone"
            | "jsonrpc" => Self::Technical,
            other => match PagingMember::of(other) {
                Some(member) => Self::Paging(member),
                None if is_failure_name(other) => Self::Failure,
                None => Self::Unknown,
            },
        }
    }
}

/// Whether a normalised name is one of members that are only there, or only true, when something failed.
fn is_failure_name(name: &str) -> bool {
    const PARTS: [&str; 13] = [
        "banned",
        "blocked",
        "denied",
        "disconnected",
        "error",
        "exception",
        "expired",
        "fail",
        "fault",
        "invalid",
        "loggedout",
        "stopped",
        "unauthor",
    ];
    name.starts_with("err") || PARTS.iter().any(|part| name.contains(part))
}

/// A name in lower case, without anything but ASCII letters and digits; `None` where that is too long, or the
/// name has other letters.
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
    fn names_are_known_however_they_are_written() {
        for (name, kind) in [
            ("statusCode", Kind::Status),
            ("STATUS_CODE", Kind::Status),
            ("isSuccess", Kind::Success),
            ("errors", Kind::Error),
            ("errorCode", Kind::Failure),
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
