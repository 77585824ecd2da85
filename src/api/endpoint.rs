//! The endpoints of the API, and their addresses in each dialect.

use secrecy::ExposeSecret;
use url::Url;

use super::{Auth, Client, Dialect};

/// An endpoint, with the object that the request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint<'a> {
    /// The labels of the account.
    Labels,
    /// The chats that carry a label.
    Chats(&'a str),
    /// A contact, by its chat id.
    Contact(&'a str),
    /// A contact's text about the person.
    About(&'a str),
    /// The URL of a contact's picture.
    Picture(&'a str),
    /// Whether a phone number has an account.
    Exists(&'a str),
    /// The phone number behind an `@lid`.
    Lid(&'a str),
}

impl<'a> Endpoint<'a> {
    /// Returns the segments of the path, below the base of the dialect.
    fn path(self) -> Vec<&'a str> {
        match self {
            Self::Labels => vec!["labels"],
            Self::Chats(label_id) => vec!["labels", label_id, "chats"],
            Self::Contact(_) => vec!["contacts"],
            Self::About(_) => vec!["contacts", "about"],
            Self::Picture(_) => vec!["contacts", "profile-picture"],
            Self::Exists(_) => vec!["contacts", "check-exists"],
            Self::Lid(lid) => vec!["lids", lid],
        }
    }

    fn query(self) -> Option<(&'static str, &'a str)> {
        match self {
            Self::Contact(id) | Self::About(id) | Self::Picture(id) => Some(("contactId", id)),
            Self::Exists(number) => Some(("phone", number)),
            Self::Labels | Self::Chats(_) | Self::Lid(_) => None,
        }
    }

    /// Returns whether WAHA takes the session from the query and not from the path.
    fn takes_session_in_query(self) -> bool {
        self.query().is_some()
    }
}

impl Client {
    /// Returns the address of an endpoint, with the login if it belongs into the query.
    pub(super) fn url(&self, endpoint: Endpoint<'_>) -> Url {
        let session_in_query = self.dialect == Dialect::Waha && endpoint.takes_session_in_query();
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            match self.dialect {
                Dialect::WawpV2 => segments.push("v2"),
                Dialect::WawpV1 => segments.extend(["wp-json", "awp", "v1"]),
                Dialect::Waha if session_in_query => segments.push("api"),
                Dialect::Waha => segments.extend(["api", &self.instance_id]),
            };
            segments.extend(endpoint.path());
        }
        if let Some((name, value)) = endpoint.query() {
            url.query_pairs_mut().append_pair(name, value);
        }
        if session_in_query {
            url.query_pairs_mut()
                .append_pair("session", &self.instance_id);
        }
        if self.dialect != Dialect::Waha && self.auth == Auth::Query {
            url.query_pairs_mut()
                .append_pair("instance_id", &self.instance_id)
                .append_pair("access_token", self.token.expose_secret());
        }
        url
    }
}
