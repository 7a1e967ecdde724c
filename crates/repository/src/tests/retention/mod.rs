//! Expiry: random histories against a model, and each rule by itself.

mod model;
mod property;
mod rules;
mod snapshots;
