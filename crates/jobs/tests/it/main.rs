//! The plan as its users see it: a driver with real threads and a real folder, and seeded histories of its decisions.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod histories;
mod plan;
mod tasks;
