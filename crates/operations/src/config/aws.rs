//! `[aws]`: which client asks Amazon's services, and as whom. Credentials are not here: the client has them.

use std::path::PathBuf;

use control_plane::aws::Aws;
use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AwsConfig {
    /// `aws` on the PATH when absent.
    program: Option<PathBuf>,
    /// Another address than Amazon's own, of all services.
    endpoint_url: Option<String>,
    /// Of `~/.aws`.
    profile: Option<String>,
    region: Option<String>,
}

impl AwsConfig {
    pub fn client(&self) -> Aws {
        let default = Aws::default();
        Aws {
            program: self.program.clone().unwrap_or(default.program),
            endpoint_url: self.endpoint_url.clone(),
            profile: self.profile.clone(),
            region: self.region.clone(),
            timeout: default.timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    #[test]
    fn what_is_said_reaches_the_client_and_a_misspelt_word_is_named() {
        let text = "[aws]\nregion = 'eu-west-1'\nprofile = 'backup'\nprogram = '/opt/aws'\n\
                    endpoint_url = 'http://127.0.0.1:1'\n";
        let config = Config::parse(text, Path::new("bre.toml")).unwrap();
        let client = config.backup.aws.unwrap().client();
        assert_eq!(client.region.as_deref(), Some("eu-west-1"));
        assert_eq!(client.profile.as_deref(), Some("backup"));
        assert_eq!(client.program, Path::new("/opt/aws"));
        assert_eq!(client.endpoint_url.as_deref(), Some("http://127.0.0.1:1"));
        let error = Config::parse("[aws]\nregoin = ''\n", Path::new("bre.toml"));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("regoin"), "{error}");
        let none = Config::parse("", Path::new("bre.toml")).unwrap();
        assert!(none.backup.aws.is_none());
    }
}
