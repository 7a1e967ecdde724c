//! Other systems' control planes, driven through their official command-line clients: an operator can read and run the
//! same line by hand. [`call`] runs a client, [`kubernetes`], [`helm`], [`aws`], [`terraform`] and
//! [`git`] say what to ask of theirs.
//!
//! Content goes to a client through standard input, never in its arguments; a client gets only the environment that is
//! named; what it says of a failure is told, without what it was given.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

pub mod aws;
pub mod call;
pub mod git;
pub mod helm;
pub mod kubernetes;
pub mod terraform;

pub use call::{Call, ClientError, is_program};
