//! Splits a broker's URL. No error quotes the URL, because any part of it may contain a password.

use ::url::Url;

/// Hint on how to write special characters.
pub(super) const ENCODING: &str = "in a user, password, path or parameter, percent-encode special \
                                   characters: % as %25, # as %23, / as %2F, ? as %3F, @ as %40, \
                                   : as %3A, & as %26";

/// Parts of a URL after its scheme: `[login@]host[,host…][/path][?parameters]`.
pub(super) struct Parts<'a> {
    /// User and password as written, with the `@`; empty if there are none.
    pub(super) login: String,
    /// Hosts with their ports; never empty.
    pub(super) hosts: Vec<&'a str>,
    /// The path as written, without the leading slash.
    pub(super) path: &'a str,
    /// The parameters as written.
    pub(super) query: &'a str,
    /// The parameters, decoded.
    pub(super) parameters: Parameters,
}

impl<'a> Parts<'a> {
    /// Splits what follows `://`.
    ///
    /// An unencoded special character in a password ends the host too early. What follows it, up to
    /// the `@`, becomes a path, a parameter or a fragment. Such a URL is rejected, even if the part
    /// before the character would be a valid host and port.
    pub(super) fn split(rest: &'a str, known: &[&str]) -> Result<Self, String> {
        if rest.contains('#') {
            return Err(format!("has a # in it; {ENCODING}"));
        }
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = before.split_once('/').unwrap_or((before, ""));
        if path.contains('@') {
            return Err(format!("has a @ after the host; {ENCODING}"));
        }
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (format!("{login}@"), hosts),
            None => (String::new(), authority),
        };
        Ok(Self {
            login,
            hosts: hosts.split(',').collect(),
            path,
            query,
            parameters: Parameters::read(query, known)?,
        })
    }
}

/// Decoded parameters; each name occurs once.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Parses a query whose parameters must all be in `known`.
    pub(super) fn read(query: &str, known: &[&str]) -> Result<Self, String> {
        // A plus sign means a space in HTML forms only.
        let query = query.replace('+', "%2B");
        let url = Url::parse(&format!("x:?{query}")).map_err(|_| "is not a URL".to_owned())?;
        let mut found: Vec<(String, String)> = Vec::new();
        for (name, value) in url.query_pairs().filter(|(name, _)| !name.is_empty()) {
            if !known.contains(&&*name) {
                let known = known.join(", ");
                return Err(match shown(&query, &name) {
                    Some(name) => format!("has no parameter “{name}”; its parameters are {known}"),
                    None => format!(
                        "has a parameter that does not exist; its parameters are {known}; {ENCODING}"
                    ),
                });
            }
            if found.iter().any(|(before, _)| *before == name) {
                return Err(format!("has the parameter {name} more than once"));
            }
            found.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(found))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Returns the name of an unknown parameter for an error text, unless it may be part of a password:
/// then an `@` follows.
fn shown<'n>(query: &str, name: &'n str) -> Option<&'n str> {
    let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_word && !query.contains('@')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_percent_signs_are_decoded() {
        let found = Parameters::read("a=x+y%2B%26&b=", &["a", "b"]);
        let found = found.map_err(|error| format!("refused: {error}"));
        let values = found.map(|found| found.0);
        let expected = [("a", "x+y+&"), ("b", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(values, Ok(expected.to_vec()));
    }
}
