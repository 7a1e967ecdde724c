//! `bre serve`: the four services as four processes.

mod failures;
mod fleet;
mod settings;
mod together;
