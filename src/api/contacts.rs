//! Look-ups of one contact. Each is one attempt.

use super::endpoint::Endpoint;
use super::{ApiError, Client, Dialect};
use crate::decode::{self, Complaint, LookupError};
use crate::message::Contact;

/// The maximum length of an answer about a contact, in bytes. A business has a long profile.
const MAX_CONTACT_BYTES: usize = 256 * 1024;

impl Client {
    /// Requests a contact. Returns `None` if it does not exist.
    ///
    /// The picture and the chat id of an `@lid` have requests of their own, and so has the text
    /// about the person, which some engines include here.
    ///
    /// # Errors
    ///
    /// If the request fails, or the response is not about a contact.
    pub async fn contact(&self, chat_id: &str) -> Result<Option<Contact>, ApiError> {
        let found = self.find(Endpoint::Contact(chat_id), decode::contact);
        let text = |text: Option<String>| self.without_token(text);
        Ok(found.await?.map(|contact| Contact {
            name: text(contact.name),
            push_name: text(contact.push_name),
            about: text(contact.about),
            ..contact
        }))
    }

    /// Requests the text about a person. Returns `None` if there is none.
    ///
    /// # Errors
    ///
    /// If the request fails, or the response is not about a contact.
    pub async fn about(&self, chat_id: &str) -> Result<Option<String>, ApiError> {
        let found = self.find(Endpoint::About(chat_id), decode::about);
        found.await.map(|about| self.without_token(about))
    }

    /// Requests the URL of a picture. Returns `None` if there is none, or if it is not visible.
    ///
    /// # Errors
    ///
    /// If the request fails, or the response is not about a picture.
    pub async fn picture_url(&self, chat_id: &str) -> Result<Option<String>, ApiError> {
        let found = self.find(Endpoint::Picture(chat_id), decode::picture_url);
        found.await.map(|url| self.without_token(url))
    }

    /// Requests the id `…@c.us` of the chat behind an `…@lid`. Returns `None` if the API does not
    /// know it.
    ///
    /// # Errors
    ///
    /// If the request fails, or the response is not about an `@lid`.
    pub async fn chat_of_lid(&self, lid: &str) -> Result<Option<String>, ApiError> {
        self.find(Endpoint::Lid(lid), decode::chat_of_lid).await
    }

    /// Requests whether a phone number has an account.
    ///
    /// # Errors
    ///
    /// If the request fails, or the response does not say it.
    pub async fn number_exists(&self, number: &str) -> Result<bool, ApiError> {
        match self
            .look_up(Endpoint::Exists(number), decode::number_exists)
            .await
        {
            Err(error) if error.says_contact_is_missing() => Ok(false),
            found => found,
        }
    }

    /// Performs a look-up that may find nothing.
    async fn find<T>(
        &self,
        endpoint: Endpoint<'_>,
        read: fn(&[u8]) -> Result<Option<T>, LookupError>,
    ) -> Result<Option<T>, ApiError> {
        match self.look_up(endpoint, read).await {
            // WAHA's framework sends `null` as an empty body.
            Err(ApiError::Contact(error))
                if self.dialect == Dialect::Waha && matches!(*error, LookupError::Empty) =>
            {
                Ok(None)
            }
            Err(error) if error.says_contact_is_missing() => Ok(None),
            found => found,
        }
    }

    async fn look_up<T>(
        &self,
        endpoint: Endpoint<'_>,
        read: fn(&[u8]) -> Result<T, LookupError>,
    ) -> Result<T, ApiError> {
        let body = self.body(self.get(endpoint, false).await?)?;
        let body = body
            .read_all(MAX_CONTACT_BYTES, ApiError::ContactTooLong)
            .await?;
        read(&body).map_err(|error| {
            let error = match error {
                LookupError::Answered(answer) => LookupError::Answered(self.redact(*answer)),
                other => other,
            };
            ApiError::Contact(Box::new(error))
        })
    }

    fn without_token(&self, text: Option<String>) -> Option<String> {
        text.map(|text| self.redact.secrets(&text))
    }
}

impl ApiError {
    /// Returns whether this says of the contact, and of nothing else, that it does not exist.
    fn says_contact_is_missing(&self) -> bool {
        let answer = match self {
            Self::Status { status, answer, .. } if status.as_u16() == 404 => answer,
            Self::Contact(error) => match &**error {
                LookupError::Answered(answer) => answer,
                _ => return false,
            },
            _ => return false,
        };
        answer.complaint() == Complaint::MissingContact
    }
}
