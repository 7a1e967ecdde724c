//! One progress for every long operation: a bar, JSON events, or the log.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Where the steps go.
pub struct Steps {
    bar: Option<terminal::Progress>,
    listener: Option<Box<dyn repository::Progress>>,
    cancelled: Arc<AtomicBool>,
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steps")
            .field("bar", &self.bar)
            .finish_non_exhaustive()
    }
}

impl Steps {
    /// For a person or a machine that called a command.
    pub fn shown(json: bool, what: &'static str) -> Self {
        Self {
            bar: Some(terminal::Progress::new(json, what)),
            listener: None,
            cancelled: Arc::default(),
        }
    }

    /// For the engine itself: into its log.
    pub fn logged() -> Self {
        Self {
            bar: None,
            listener: None,
            cancelled: Arc::default(),
        }
    }

    /// Ends the operation cleanly once the flag is set.
    pub fn cancelled_by(mut self, flag: Arc<AtomicBool>) -> Self {
        self.cancelled = flag;
        self
    }

    /// Somebody elsewhere follows them, too.
    pub fn heard_by(mut self, listener: Box<dyn repository::Progress>) -> Self {
        self.listener = Some(listener);
        self
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub fn set_total(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.total(bytes);
        }
        if let Some(listener) = &self.listener {
            listener.total(bytes);
        }
    }

    pub fn advanced(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.advance(bytes);
        }
        if let Some(listener) = &self.listener {
            listener.advance(bytes);
        }
    }

    /// Takes the bar away while somebody is asked something.
    pub fn hidden_while<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.hidden_while(work),
            None => work(),
        }
    }

    pub fn step(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.message(text),
            None => tracing::info!(step = text, "working"),
        }
        if let Some(listener) = &self.listener {
            listener.message(text);
        }
    }
}

impl repository::Progress for Steps {
    fn total(&self, bytes: u64) {
        self.set_total(bytes);
    }
    fn advance(&self, bytes: u64) {
        self.advanced(bytes);
    }
    fn message(&self, text: &str) {
        self.step(text);
    }
    fn cancelled(&self) -> bool {
        self.is_cancelled()
    }
}
