//! A Redis that speaks TLS and knows users: who gets in, and who does not.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use connection::Password;
use testkit::{Authority, KeyKind, TestRedis};

use super::{RedisSettings, connect};

struct Files(tempfile::TempDir);

impl Files {
    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }
}

async fn answer(settings: &RedisSettings) -> Result<String, String> {
    let connected = connect(settings).await;
    let mut connection = connected.map_err(|trouble| trouble.to_string())?;
    let mut who = redis::cmd("ACL");
    let asked = who.arg("WHOAMI").query_async(&mut connection).await;
    asked.map_err(|error| error.to_string())
}

async fn refused(settings: &RedisSettings, says: &str) {
    let error = answer(settings).await.unwrap_err();
    assert!(error.contains(says), "{error}");
    assert!(!error.contains("hush"), "{error}");
}

#[tokio::test]
async fn the_cache_is_reached_as_its_settings_demand() {
    let files = Files(tempfile::tempdir().unwrap());
    let authority = Authority::new("authority", KeyKind::EcdsaSha256);
    let stranger = Authority::new("stranger", KeyKind::EcdsaSha256);
    let roots = files.put("roots.pem", authority.certificate());
    let strange = files.put("strange.pem", stranger.certificate());
    let redis = TestRedis::secured(&authority.server(&["localhost"]), &authority, false);
    redis
        .command("ACL SETUSER bre on >hush ~bre:1:* +@all")
        .unwrap();
    let port = redis.port();
    let mut settings = RedisSettings::from(format!("rediss://bre:hush@localhost:{port}/"));
    refused(&settings, "UnknownIssuer").await;
    settings.authorities = Some(roots.clone());
    assert_eq!(answer(&settings).await.as_deref(), Ok("bre"));
    settings.authorities = Some(strange);
    refused(&settings, "UnknownIssuer").await;
    settings.authorities = Some(roots.clone());
    // The certificate is for another name.
    settings.url = format!("rediss://bre:hush@127.0.0.1:{port}/");
    refused(&settings, "not valid for").await;
    // A server that speaks no TLS.
    let other = TestRedis::start();
    settings.url = format!("rediss://bre:hush@localhost:{}/", other.port());
    assert!(answer(&settings).await.is_err());
    assert!(
        !other
            .command("CLIENT LIST")
            .unwrap()
            .contains("lib-name=redis-rs")
    );

    // A password that is asked for at each connect.
    settings.url = format!("rediss://bre@localhost:{port}/");
    let file = files.put("password", "hush\n");
    settings.password = Password::File(file.clone());
    assert_eq!(answer(&settings).await.as_deref(), Ok("bre"));
    redis.command("ACL SETUSER bre <hush >hush2").unwrap();
    refused(&settings, "Password authentication failed").await;
    files.put("password", "hush2\n");
    assert_eq!(answer(&settings).await.as_deref(), Ok("bre"));
    settings.password = Password::Command(format!("cat {}", file.display()));
    assert_eq!(answer(&settings).await.as_deref(), Ok("bre"));
    settings.password = Password::Command("echo hush; exit 3".to_owned());
    refused(&settings, "exit status: 3").await;

    // A server that wants to see a certificate of ours.
    let strict = TestRedis::secured(&authority.server(&["localhost"]), &authority, true);
    let mut settings = RedisSettings::from(format!("rediss://localhost:{}/", strict.port()));
    settings.authorities = Some(roots);
    assert!(answer(&settings).await.is_err());
    let own = authority.client("bre");
    let key = files.put("client.key", &own.key);
    settings.identity = Some((files.put("client.crt", &own.certificate), key.clone()));
    assert_eq!(answer(&settings).await.as_deref(), Ok("default"));
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    refused(&settings, "chmod 600").await;
}
