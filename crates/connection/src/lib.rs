//! How to reach a PostgreSQL: one form of connection string for all our clients, TLS and its certificates, passwords
//! that are read at each connect, and which of several servers to take. No sockets: the clients (SQL in `services`,
//! replication in `postgres_physical`) have their own.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod binding;
mod certificates;
mod landing;
mod options;
mod parse;
mod password;
mod programs;
mod tls;

pub use binding::server_end_point;
pub use landing::{Landing, ServerRole, is_away};
pub use options::{Address, ConnectOptions, Host};
pub use parse::StringError;
pub use password::{Password, PasswordError, Secret};
pub use programs::ProgramError;
pub use tls::{ChannelBinding, Roots, Tls, TlsError, TlsMode, TlsOptions};
