//! Proof that a webhook comes from its sender: an HMAC over the raw body, or a plain secret.
//!
//! Senders differ: WAHA sends `X-Webhook-Hmac`, the HMAC-SHA512 in hexadecimal; Wawp's SDK checks an
//! HMAC-SHA256; Wawp's set-up page describes a plain secret, and its examples put it into the URL.

use axum::http::{HeaderMap, HeaderName, Uri};
use percent_encoding::percent_decode_str;
use ring::hmac::{self, Key};
use ring::rand::SystemRandom;
use secrecy::{ExposeSecret as _, SecretString};

/// How webhooks are authenticated.
pub enum WebhookAuth {
    /// By an HMAC of the body, in hexadecimal, in a header.
    Hmac {
        /// The header.
        header: HeaderName,
        /// A key for each secret. Several are valid at once, so that they can be rotated.
        keys: Vec<Key>,
    },
    /// By the secret itself, in a header or as `secret` in the query.
    Secret {
        /// The header.
        header: HeaderName,
        /// The secrets, as digests under a key of this process.
        secrets: SecretDigests,
    },
    /// Not at all.
    None,
}

/// The algorithm of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacAlgorithm {
    /// SHA-512, as WAHA uses.
    Sha512,
    /// SHA-256, as Wawp's SDK uses.
    Sha256,
}

/// Secrets that are compared in constant time, whatever their lengths: as HMACs under a random key.
pub struct SecretDigests {
    key: Key,
    digests: Vec<hmac::Tag>,
}

/// The error if the system has no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct NoRandomNumbers;

impl WebhookAuth {
    /// Authenticates by an HMAC under one of these secrets.
    pub fn hmac(algorithm: HmacAlgorithm, header: HeaderName, secrets: &[SecretString]) -> Self {
        let algorithm = match algorithm {
            HmacAlgorithm::Sha512 => hmac::HMAC_SHA512,
            HmacAlgorithm::Sha256 => hmac::HMAC_SHA256,
        };
        let key = |secret: &SecretString| Key::new(algorithm, secret.expose_secret().as_bytes());
        Self::Hmac {
            header,
            keys: secrets.iter().map(key).collect(),
        }
    }

    /// Authenticates by one of these secrets.
    ///
    /// # Errors
    ///
    /// [`NoRandomNumbers`].
    pub fn secret(header: HeaderName, secrets: &[SecretString]) -> Result<Self, NoRandomNumbers> {
        let secrets = SecretDigests::new(secrets)?;
        Ok(Self::Secret { header, secrets })
    }

    /// Whether a request may come from the sender, by its head: its body is worth reading.
    pub fn may_accept(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        match self {
            Self::Hmac { header, keys } => {
                let signature = headers
                    .get(header)
                    .and_then(|value| digest(value.as_bytes()));
                let length = |key: &Key| key.algorithm().digest_algorithm().output_len();
                signature.is_some_and(|it| keys.iter().any(|key| length(key) == it.len()))
            }
            // These do not depend on the body.
            Self::Secret { .. } | Self::None => self.accepts(headers, uri, &[]),
        }
    }

    /// Whether a request comes from the sender.
    pub fn accepts(&self, headers: &HeaderMap, uri: &Uri, body: &[u8]) -> bool {
        match self {
            Self::Hmac { header, keys } => {
                let signature = headers
                    .get(header)
                    .and_then(|value| digest(value.as_bytes()));
                let is_by = |signature: &[u8], key| hmac::verify(key, body, signature).is_ok();
                signature.is_some_and(|it| keys.iter().any(|key| is_by(&it, key)))
            }
            Self::Secret { header, secrets } => match headers.get(header) {
                Some(value) => secrets.contain(value.as_bytes()),
                None => secrets_in(uri).iter().any(|secret| secrets.contain(secret)),
            },
            Self::None => true,
        }
    }
}

impl SecretDigests {
    /// Takes secrets.
    ///
    /// # Errors
    ///
    /// [`NoRandomNumbers`].
    pub fn new(secrets: &[SecretString]) -> Result<Self, NoRandomNumbers> {
        let key = Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| NoRandomNumbers)?;
        let digest = |secret: &SecretString| hmac::sign(&key, secret.expose_secret().as_bytes());
        let digests = secrets.iter().map(digest).collect();
        Ok(Self { key, digests })
    }

    /// Whether a text is one of the secrets.
    pub fn contain(&self, text: &[u8]) -> bool {
        let is = |digest: &&hmac::Tag| hmac::verify(&self.key, text, digest.as_ref()).is_ok();
        self.digests.iter().any(|digest| is(&digest))
    }
}

/// Returns the value of `secret` in the query, in both readings of a plus sign: as in forms, and as
/// somebody copies it.
fn secrets_in(uri: &Uri) -> Vec<Vec<u8>> {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    let Some(value) = pairs.find_map(|pair| pair.strip_prefix("secret=")) else {
        return Vec::new();
    };
    let decoded = |text: &str| percent_decode_str(text).collect();
    vec![decoded(&value.replace('+', " ")), decoded(value)]
}

/// Returns bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decodes hexadecimal digits, before which the algorithm may stand (`sha512=…`).
fn digest(text: &[u8]) -> Option<Vec<u8>> {
    let digits = [&b"sha512="[..], b"sha256="]
        .iter()
        .find_map(|prefix| text.strip_prefix(*prefix))
        .unwrap_or(text)
        .trim_ascii();
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16)?).ok();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    pairs.iter().map(byte).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The example in WAHA's documentation of webhooks.
    const BODY: &[u8] = br#"{"event":"message","session":"default","engine":"WEBJS"}"#;
    const KEY: &str = "my-secret-key";
    const SHA512: &str = "208f8a55dde9e05519e898b10b89bf0d0b3b0fdf11fdbf09b6b90476301b98d8097c462b2b17a6ce93b6b47a136cf2e78a33a63f6752c2c1631777076153fa89";

    fn header(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])
    }

    fn secrets(texts: &[&str]) -> Vec<SecretString> {
        texts.iter().map(|text| SecretString::from(*text)).collect()
    }

    #[test]
    fn the_published_vector_is_accepted_and_nothing_else() {
        let name = "x-webhook-hmac";
        let auth = |secrets: &[SecretString]| {
            WebhookAuth::hmac(
                HmacAlgorithm::Sha512,
                HeaderName::from_static(name),
                secrets,
            )
        };
        let uri = Uri::from_static("/webhook");
        let accepts = |auth: &WebhookAuth, value: &str, body: &[u8]| {
            auth.accepts(&header(name, value), &uri, body)
        };
        let ours = auth(&secrets(&["newer", KEY]));
        assert!(accepts(&ours, SHA512, BODY));
        assert!(accepts(&ours, &SHA512.to_uppercase(), BODY));
        assert!(accepts(&ours, &format!("sha512={SHA512}"), BODY));
        assert!(!accepts(&auth(&secrets(&["newer"])), SHA512, BODY));
        assert!(!accepts(&auth(&[]), SHA512, BODY));
        assert!(!accepts(&ours, SHA512, &BODY[1..]));
        for wrong in [
            "",
            "20",
            &SHA512[1..],
            &SHA512[2..],
            &SHA512.replace('8', "9"),
            "zz",
        ] {
            assert!(!accepts(&ours, wrong, BODY), "{wrong}");
        }
        assert!(!ours.accepts(&HeaderMap::new(), &uri, BODY));
        assert!(!ours.accepts(&header("x-other", SHA512), &uri, BODY));
    }

    #[test]
    fn an_hmac_may_be_of_sha256() {
        let name = "x-wawp-signature";
        let auth = WebhookAuth::hmac(
            HmacAlgorithm::Sha256,
            HeaderName::from_static(name),
            &secrets(&["key"]),
        );
        // The well-known example of HMAC-SHA256.
        let tag = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8";
        let body = b"The quick brown fox jumps over the lazy dog";
        let uri = Uri::from_static("/webhook");
        assert!(auth.accepts(&header(name, tag), &uri, body));
        assert!(!auth.accepts(&header(name, SHA512), &uri, body));
    }

    #[test]
    fn a_secret_is_in_the_header_or_the_query() {
        let name = "x-webhook-secret";
        let auth = WebhookAuth::secret(HeaderName::from_static(name), &secrets(&["a b", "é"]));
        let auth = auth.unwrap();
        let accepts =
            |headers: &HeaderMap, uri: &str| auth.accepts(headers, &uri.parse().unwrap(), b"any");
        assert!(accepts(&header(name, "a b"), "/webhook"));
        for uri in [
            "/webhook?secret=a%20b",
            "/webhook?x=1&secret=a+b",
            "/webhook?secret=%C3%A9",
        ] {
            assert!(accepts(&HeaderMap::new(), uri), "{uri}");
        }
        for uri in [
            "/webhook",
            "/webhook?secret=",
            "/webhook?secret=a",
            "/webhook?xsecret=a%20b",
        ] {
            assert!(!accepts(&HeaderMap::new(), uri), "{uri}");
        }
        // A wrong header is not made good by the query.
        assert!(!accepts(&header(name, "a"), "/webhook?secret=a%20b"));
    }
}
