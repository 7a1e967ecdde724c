//! `s3://bucket/prefix?region=…&endpoint=…`: a place, never a secret.

use std::{fmt, path::PathBuf, str::FromStr};

/// A bucket, what is before all names in it, and how it is reached. Credentials come from the SDK's usual places
/// (environment, profile, the machine's role); a location names a profile or a file at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    pub bucket: String,
    /// Without a slash at either end; empty for the whole bucket.
    pub prefix: String,
    pub region: Option<String>,
    /// Another server than Amazon's.
    pub endpoint: Option<String>,
    /// `https://server/bucket/…` instead of `https://bucket.server/…`; yes where an endpoint is named.
    pub path_style: bool,
    pub profile: Option<String>,
    /// In the form of `~/.aws/credentials`.
    pub credentials_file: Option<PathBuf>,
    /// None: as the SDK's own variables and profile say, and CRC-32C where they say nothing.
    pub checksums: Option<Checksums>,
}

/// What is sent along with the bytes for the server to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    Crc32c,
    /// For stores that know no `x-amz-checksum-…` and no trailers, and refuse what carries them.
    None,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{reason}. A location in S3 reads s3://BUCKET/PREFIX?region=REGION, with &endpoint=URL, &path-style=true, &profile=NAME, \
     &credentials-file=PATH or &checksums=none where needed"
)]
pub struct LocationError {
    reason: String,
}

fn wrong(reason: impl Into<String>) -> LocationError {
    LocationError {
        reason: reason.into(),
    }
}

impl FromStr for S3Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        // Not repeated in what is said about it: it may hold a password that does not belong there.
        let Some(rest) = text.strip_prefix("s3://") else {
            return Err(wrong("it does not begin with s3://"));
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let mut location = Self {
            bucket: bucket_name(bucket)?,
            prefix: prefix_of(prefix)?,
            region: None,
            endpoint: None,
            path_style: false,
            profile: None,
            credentials_file: None,
            checksums: None,
        };
        let mut path_style = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(wrong("a part after the question mark has no value"));
            };
            let value = plain(key, value)?;
            match key {
                "region" => location.region = Some(value),
                "endpoint" => location.endpoint = Some(endpoint(value)?),
                "profile" => location.profile = Some(value),
                "credentials-file" => location.credentials_file = Some(PathBuf::from(value)),
                "path-style" => path_style = Some(yes_or_no(&value)?),
                "checksums" => location.checksums = Some(checksums(&value)?),
                _ => return Err(wrong("a part after the question mark has another name")),
            }
        }
        location.path_style = path_style.unwrap_or(location.endpoint.is_some());
        Ok(location)
    }
}

fn bucket_name(bucket: &str) -> Result<String, LocationError> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if bucket.is_empty() || !bucket.bytes().all(known) {
        return Err(wrong(
            "letters, digits, -, . and _ make a bucket's name; keys do not belong into a location",
        ));
    }
    Ok(bucket.to_owned())
}

fn prefix_of(prefix: &str) -> Result<String, LocationError> {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() || repository::store::check_name(prefix).is_ok() {
        return Ok(prefix.to_owned());
    }
    Err(wrong(
        "letters, digits, _, - and ., divided by single slashes, make a prefix",
    ))
}

fn plain(key: &str, value: &str) -> Result<String, LocationError> {
    let known =
        |b: u8| b.is_ascii_graphic() && !matches!(b, b'%' | b'#' | b'?' | b'&' | b'\'' | b'"');
    if value.is_empty() || !value.bytes().all(known) {
        return Err(wrong(format!(
            "the value of {} is empty or holds a sign that it cannot",
            if key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
                key
            } else {
                "a part"
            }
        )));
    }
    Ok(value.to_owned())
}

fn endpoint(value: String) -> Result<String, LocationError> {
    let host = value
        .strip_prefix("https://")
        .or_else(|| value.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains('@') => {
            Ok(value.trim_end_matches('/').to_owned())
        }
        Some(_) => Err(wrong("the endpoint is a server without user or password")),
        None => Err(wrong("the endpoint begins with https:// or http://")),
    }
}

fn yes_or_no(value: &str) -> Result<bool, LocationError> {
    value
        .parse()
        .map_err(|_| wrong("path-style is true or false"))
}

fn checksums(value: &str) -> Result<Checksums, LocationError> {
    match value {
        "crc32c" => Ok(Checksums::Crc32c),
        "none" => Ok(Checksums::None),
        _ => Err(wrong("checksums is crc32c or none")),
    }
}

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)?;
        let file = self.credentials_file.as_ref();
        let file = file.map(|path| path.display().to_string());
        let usual = self.endpoint.is_some() == self.path_style;
        let path_style = (!usual).then(|| self.path_style.to_string());
        let checksums = self.checksums.map(|checksums| match checksums {
            Checksums::Crc32c => "crc32c".to_owned(),
            Checksums::None => "none".to_owned(),
        });
        let parts = [
            ("region", self.region.clone()),
            ("endpoint", self.endpoint.clone()),
            ("path-style", path_style),
            ("profile", self.profile.clone()),
            ("credentials-file", file),
            ("checksums", checksums),
        ];
        let mut sign = '?';
        for (key, value) in parts {
            if let Some(value) = value {
                write!(f, "{sign}{key}={value}")?;
                sign = '&';
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn read_and_printed_back() {
        for text in [
            "s3://bucket/",
            "s3://bucket/a/b?region=eu-central-1",
            "s3://b/p?region=us-east-1&endpoint=http://127.0.0.1:9000",
            "s3://b/p?endpoint=https://store.example&path-style=false",
            "s3://b/p?path-style=true&profile=backup&credentials-file=/etc/bre/aws",
            "s3://b/p?checksums=none",
            "s3://b/p?region=eu-west-1&checksums=crc32c",
        ] {
            let location: S3Location = text.parse().unwrap();
            assert_eq!(location.to_string(), text);
        }
        let bare: S3Location = "s3://bucket".parse().unwrap();
        assert_eq!(bare.to_string(), "s3://bucket/");
        assert!(!bare.path_style);
    }

    #[test]
    fn what_is_wrong_is_said_without_repeating_secrets() {
        for text in [
            "s3://KEY:hunter2@bucket/p",
            "s3://b/p?endpoint=https://u:hunter2@server",
            "s3://b/p?secret=hunter2",
            "s3://b/p?hunter2",
            "s3://b/../hunter2",
            "s3://b/p?region=",
            "s3://b/p?checksums=hunter2",
            "/folder/hunter2",
        ] {
            let said = text.parse::<S3Location>().unwrap_err().to_string();
            assert!(
                said.contains("s3://BUCKET") && !said.contains("hunter2"),
                "{said}"
            );
        }
    }
}
