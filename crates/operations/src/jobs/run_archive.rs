//! Run records in the repository.

use host::person::machine;
use jobs::Archive;
use repository::{Repository, runs};

#[derive(Debug)]
pub struct RunArchive(pub Repository);

impl Archive for RunArchive {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        runs::put_run(&self.0, name, bytes).map_err(|error| error.to_string())
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, String> {
        runs::run_names(&self.0, prefix).map_err(|error| error.to_string())
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, String> {
        runs::run(&self.0, name).map_err(|error| error.to_string())
    }

    fn delete(&self, name: &str) -> Result<(), String> {
        runs::drop_run(&self.0, name).map_err(|error| error.to_string())
    }
}

/// As run records name this machine.
pub fn host_name() -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    machine().chars().filter(plain).take(40).collect()
}
