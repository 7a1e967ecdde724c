//! Secrets that both sides know: what opens the services to each other, and the metrics to whoever reads them.

use std::path::Path;

use services::InternalSecret;

use crate::error::Error;

/// Whoever may read it may use it.
pub fn read(what: &'static str, path: &Path) -> Result<InternalSecret, Error> {
    let refused = |reason: String| Error::refused(what, format!("{}: {reason}", path.display()));
    let text = secrets::read_text(path).map_err(|error| refused(error.reason()))?;
    InternalSecret::new(&text).map_err(refused)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o644);
        let error = read("it is not usable", &path).unwrap_err().to_string();
        assert!(
            error.contains("0644") && error.contains("chmod 600"),
            "{error}"
        );
        mode(0o600);
        read("it is not usable", &path).unwrap();
        std::fs::write(&path, "too short").unwrap();
        let error = read("it is not usable", &path).unwrap_err().to_string();
        assert!(
            error.contains("32") && !error.contains("too short"),
            "{error}"
        );
    }
}
