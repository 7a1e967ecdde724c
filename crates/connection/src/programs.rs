//! The same connection for programs that are built on libpq (`pg_dump`, `psql`).

use std::ffi::OsString;
use std::path::PathBuf;

use crate::landing::Landing;
use crate::options::{ConnectOptions, Host};
use crate::password::PasswordError;
use crate::tls::{ChannelBinding, Roots, TlsMode};

/// Why a program cannot be given the same demands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(
        "sslrootcert=system: PostgreSQL's own programs know it from version 16 on, and this system keeps its \
         certificates in no single file; name a file"
    )]
    NoSystemFile,
}

/// In place of what is not named: else libpq looks into somebody's home folder.
const NO_FILE: &str = "/dev/null/none";

impl ConnectOptions {
    /// Environment variables of libpq in place of a connection string: no name in them is read as anything but a value.
    /// The password is asked for now. `major`: of the programs.
    pub fn environment(&self, major: u32) -> Result<Vec<(&'static str, OsString)>, ProgramError> {
        let mut list: Vec<(&'static str, OsString)> = Vec::new();
        let joined = |parts: Vec<OsString>| parts.join(&OsString::from(","));
        let hosts = self.addresses.iter().map(|address| match &address.host {
            Host::Unix(folder) => folder.clone().into_os_string(),
            Host::Tcp(host) => host.into(),
        });
        let ports = self.addresses.iter();
        list.push(("PGHOST", joined(hosts.collect())));
        list.push((
            "PGPORT",
            joined(
                ports
                    .map(|address| address.port.to_string().into())
                    .collect(),
            ),
        ));
        if self.addresses.iter().any(|address| address.ip.is_some()) {
            let ips = self.addresses.iter();
            let ips = ips.map(|address| address.ip.map(|ip| ip.to_string()).unwrap_or_default());
            list.push(("PGHOSTADDR", joined(ips.map(OsString::from).collect())));
        }
        list.push(("PGUSER", (&self.user).into()));
        list.push(("PGDATABASE", (&self.database).into()));
        list.push(("PGAPPNAME", (&self.application_name).into()));
        list.push((
            "PGCONNECT_TIMEOUT",
            self.timeout.as_secs().max(2).to_string().into(),
        ));
        if let Some(options) = &self.server_options {
            list.push(("PGOPTIONS", options.into()));
        }
        if self.landing != Landing::Any {
            list.push(("PGTARGETSESSIONATTRS", self.landing.name().into()));
        }
        list.push(("PGSSLMODE", self.tls.mode.name().into()));
        if self.tls.mode != TlsMode::Disable {
            let roots = self.tls.roots.as_ref();
            let roots = roots.map(|roots| root_file(roots, major)).transpose()?;
            list.push(("PGSSLROOTCERT", roots.unwrap_or_else(|| NO_FILE.into())));
            for (name, file) in [
                ("PGSSLCERT", &self.tls.certificate),
                ("PGSSLKEY", &self.tls.key),
            ] {
                let file = file.as_ref().map_or_else(|| NO_FILE.into(), Into::into);
                list.push((name, file));
            }
            if self.tls.direct && major >= 17 {
                list.push(("PGSSLNEGOTIATION", "direct".into()));
            }
        }
        if self.tls.channel_binding != ChannelBinding::Prefer {
            let name = self.tls.channel_binding.name();
            list.push(("PGCHANNELBINDING", name.into()));
        }
        if let Some(first) = self.addresses.first()
            && let Some(password) = self.password.ask(self, first)?
        {
            list.push(("PGPASSWORD", password.expose().into()));
        }
        Ok(list)
    }
}

fn root_file(roots: &Roots, major: u32) -> Result<OsString, ProgramError> {
    match roots {
        Roots::File(path) => Ok(path.into()),
        Roots::System if major >= 16 => Ok("system".into()),
        Roots::System => openssl_probe::probe()
            .cert_file
            .map(PathBuf::into_os_string)
            .ok_or(ProgramError::NoSystemFile),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_demand_is_said() {
        let options = ConnectOptions::from_url(
            "host=one,/run/pg port=1,2 user=bob password=pw dbname='a=b' sslmode=verify-full sslrootcert=/ca \
             sslcert=/c sslkey=/k channel_binding=require target_session_attrs=read-write",
        )
        .unwrap();
        let said = options.environment(15).unwrap();
        for (name, value) in [
            ("PGHOST", "one,/run/pg"),
            ("PGPORT", "1,2"),
            ("PGDATABASE", "a=b"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/ca"),
            ("PGSSLCERT", "/c"),
            ("PGSSLKEY", "/k"),
            ("PGCHANNELBINDING", "require"),
            ("PGTARGETSESSIONATTRS", "read-write"),
            ("PGPASSWORD", "pw"),
        ] {
            assert!(said.contains(&(name, value.into())), "{name}: {said:?}");
        }
        let plain = ConnectOptions::from_url("host=one sslmode=disable sslrootcert=/ca").unwrap();
        let said = plain.environment(15).unwrap();
        assert!(said.contains(&("PGSSLMODE", "disable".into())), "{said:?}");
        assert!(said.iter().all(|(name, _)| *name != "PGSSLROOTCERT"));
    }
}
