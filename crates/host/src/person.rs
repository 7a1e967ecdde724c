//! Who works here, and where.

/// Who did it, for the record: the operating system's name for this account.
pub fn who() -> String {
    postgres_physical::server::OsUser::current()
        .map_or_else(|_| "unknown".to_owned(), |user| user.name)
}

/// This machine's name.
pub fn machine() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}
