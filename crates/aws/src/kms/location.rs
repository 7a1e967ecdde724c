//! Which key, and how to reach its KMS: the line that names it in a key file. It holds no secret.

use std::{fmt, path::PathBuf, str::FromStr};

/// What a line of a key file begins with.
pub const KMS_LINE: &str = "bre-recipient-kms-1";

/// A key by its full name (ARN). Credentials come from the SDK's usual places (environment, profile, the machine's
/// role); this names a profile or a file at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsLocation {
    pub arn: String,
    pub access: KmsAccess,
}

/// How a KMS is reached, whichever key of it is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KmsAccess {
    /// Another server than Amazon's.
    pub endpoint: Option<String>,
    pub profile: Option<String>,
    /// In the form of `~/.aws/credentials`.
    pub credentials_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this does not name a KMS key: {reason}. A line reads `{KMS_LINE} arn:aws:kms:REGION:ACCOUNT:key/ID`, with \
     endpoint=URL, profile=NAME or credentials-file=PATH behind it where needed"
)]
pub struct LocationError {
    reason: String,
}

fn wrong(reason: impl Into<String>) -> LocationError {
    LocationError {
        reason: reason.into(),
    }
}

impl FromStr for KmsLocation {
    type Err = LocationError;

    fn from_str(line: &str) -> Result<Self, LocationError> {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some(KMS_LINE) {
            return Err(wrong("it begins with another word"));
        }
        let arn = words.next().ok_or_else(|| wrong("it ends too early"))?;
        region_of(arn).ok_or_else(|| wrong(format!("{arn} is no ARN of a key")))?;
        let mut access = KmsAccess::default();
        for word in words {
            match word.split_once('=') {
                Some(("endpoint", url)) => access.endpoint = Some(endpoint(url)?),
                Some(("profile", name)) => access.profile = Some(name.to_owned()),
                Some(("credentials-file", path)) => access.credentials_file = Some(path.into()),
                _ => return Err(wrong("a word behind the ARN has another name")),
            }
        }
        Ok(Self {
            arn: arn.to_owned(),
            access,
        })
    }
}

impl fmt::Display for KmsLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KMS_LINE} {}", self.arn)?;
        if let Some(endpoint) = &self.access.endpoint {
            write!(f, " endpoint={endpoint}")?;
        }
        if let Some(profile) = &self.access.profile {
            write!(f, " profile={profile}")?;
        }
        if let Some(file) = &self.access.credentials_file {
            write!(f, " credentials-file={}", file.display())?;
        }
        Ok(())
    }
}

impl KmsAccess {
    /// Before it is written into a line: what is in it comes back as it was.
    pub fn check(&self) -> Result<(), LocationError> {
        if let Some(url) = &self.endpoint {
            endpoint(url)?;
        }
        let file = self.credentials_file.as_ref().map(|file| file.to_str());
        if file == Some(None) {
            return Err(wrong("the path of the credentials file is not UTF-8"));
        }
        for value in [
            self.endpoint.as_deref(),
            self.profile.as_deref(),
            file.flatten(),
        ]
        .into_iter()
        .flatten()
        {
            if value.is_empty() || value.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(wrong(format!("{value:?} is empty or holds a space")));
            }
        }
        Ok(())
    }
}

fn endpoint(url: &str) -> Result<String, LocationError> {
    let host = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains('@') => Ok(url.to_owned()),
        _ => Err(wrong(
            "an endpoint begins with https:// or http:// and holds no user",
        )),
    }
}

/// The region of a key's ARN; `None` when it is none. Names come out of wraps too, which whoever writes to the store
/// could have made: nothing else than a region may reach the name of a host.
pub(super) fn region_of(arn: &str) -> Option<&str> {
    let mut parts = arn.splitn(6, ':');
    let mut next = || parts.next();
    let (scheme, partition, service) = (next()?, next()?, next()?);
    let (region, account, resource) = (next()?, next()?, next()?);
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let is_key = resource.strip_prefix("key/").is_some_and(plain);
    let good = scheme == "arn"
        && partition.starts_with("aws")
        && plain(partition)
        && service == "kms"
        && plain(region)
        && account.bytes().all(|b| b.is_ascii_digit())
        && is_key;
    good.then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back_as_it_was() {
        for line in [
            "bre-recipient-kms-1 arn:aws:kms:eu-west-1:123456789012:key/1a2b-3c",
            "bre-recipient-kms-1 arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-1 endpoint=http://127.0.0.1:5000 profile=p credentials-file=/etc/c",
        ] {
            let location: KmsLocation = line.parse().unwrap();
            assert_eq!(location.to_string(), line);
        }
        for line in [
            "",
            "bre-recipient-public-1 00",
            "bre-recipient-kms-1",
            "bre-recipient-kms-1 alias/bre",
            "bre-recipient-kms-1 arn:aws:kms:eu-west-1.evil.example/x:1:key/a",
            "bre-recipient-kms-1 arn:aws:s3:eu-west-1:1:key/a",
            "bre-recipient-kms-1 arn:aws:kms:eu-west-1:1:key/a secret=1",
            "bre-recipient-kms-1 arn:aws:kms:eu-west-1:1:key/a endpoint=ftp://x",
        ] {
            assert!(line.parse::<KmsLocation>().is_err(), "{line}");
        }
        let spaced = KmsAccess {
            profile: Some("two words".into()),
            ..KmsAccess::default()
        };
        assert!(spaced.check().is_err());
    }
}
