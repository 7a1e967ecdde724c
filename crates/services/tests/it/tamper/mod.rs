//! What a superuser of the database does behind the engine's back, and what a verification says of it.

mod terms_and_feeds;
