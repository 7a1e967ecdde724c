//! Whether the files of a server can be read from here. A path and a system identifier prove nothing: a standby on this
//! machine has both of its primary. What proves it is a name that we just made the server write: the folder of the
//! backup's temporary slot.

use super::session::Session;
use crate::Result;
use postgres_physical::pg_control::ControlFile;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

pub(super) const CONTROL: &str = "global/pg_control";

/// A data folder that is the server's own.
#[derive(Debug)]
pub(super) struct ServerFolder {
    pub(super) data: PathBuf,
    pub(super) control: ControlFile,
}

/// `Ok(Err(why))` when the files are out of reach; an error when the server could not be asked.
pub(super) fn reach(
    session: &mut Session,
    system_identifier: u64,
    slot: Option<&str>,
) -> Result<std::result::Result<ServerFolder, String>> {
    if let Err(error) = session.check_rights() {
        return Ok(Err(error.to_string()));
    }
    let Some(data) = session.setting("data_directory")? else {
        return Ok(Err(
            "the server does not say where its data folder is".into()
        ));
    };
    Ok(look(Path::new(&data), system_identifier, slot))
}

fn look(
    data: &Path,
    system_identifier: u64,
    slot: Option<&str>,
) -> std::result::Result<ServerFolder, String> {
    let control = read_control(data)?;
    if control.system_identifier != system_identifier {
        return Err(format!(
            "{} here belongs to the cluster {}, the server's is {system_identifier}",
            data.display(),
            control.system_identifier
        ));
    }
    let Some(slot) = slot else {
        return Err(format!(
            "the server has no replication slot to spare (max_replication_slots), so {} cannot be proven to be its own",
            data.display()
        ));
    };
    if !data.join("pg_replslot").join(slot).is_dir() {
        return Err(format!(
            "{} here is not the folder that this server writes to: it is a copy or a standby",
            data.display()
        ));
    }
    for folder in ["base", "global"] {
        let folder = data.join(folder);
        fs::read_dir(&folder)
            .map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    }
    Ok(ServerFolder {
        data: data.to_owned(),
        control,
    })
}

/// The server rewrites the file in place: a look may meet half of a write.
pub(super) fn read_control_bytes(data: &Path) -> std::result::Result<Vec<u8>, String> {
    let path = data.join(CONTROL);
    let mut failure = String::new();
    for _ in 0..100 {
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        match ControlFile::parse(&bytes) {
            Ok(_) => return Ok(bytes),
            Err(error) => failure = format!("{}: {error}", path.display()),
        }
    }
    Err(failure)
}

fn read_control(data: &Path) -> std::result::Result<ControlFile, String> {
    let bytes = read_control_bytes(data)?;
    ControlFile::parse(&bytes).map_err(|error| error.to_string())
}
