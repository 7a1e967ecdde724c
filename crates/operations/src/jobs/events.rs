//! What of the jobs waits to be put on record.

use std::collections::VecDeque;

use host::{instance::Instance, record::Event};

/// What has happened and is not on record yet, oldest first. What could not be recorded stays for the next look: the audit log may
/// not be open yet. In the background, because a strict commit waits for a repository that is away, and whoever waits here
/// notices nothing else.
#[derive(Debug, Default)]
pub struct Events {
    waiting: VecDeque<Event>,
    /// The first of them, on its way.
    recording: Option<tokio::task::JoinHandle<Result<(), host::Error>>>,
}

impl Events {
    pub fn push(&mut self, event: Event) {
        self.waiting.push_back(event);
    }

    /// Nothing waits, and nothing is on its way.
    pub fn are_recorded(&self) -> bool {
        self.waiting.is_empty() && self.recording.is_none()
    }

    pub fn send(&mut self, runtime: &tokio::runtime::Handle, instance: &Instance) {
        if let Some(recording) = self.recording.take() {
            if !recording.is_finished() {
                self.recording = Some(recording);
                return;
            }
            match runtime.block_on(recording) {
                Ok(Ok(())) => drop(self.waiting.pop_front()),
                failed => tracing::debug!(?failed, "a job is not on record yet"),
            }
        }
        if let Some(event) = self.waiting.front().cloned() {
            let instance = instance.clone();
            let recording = async move { event.record(&instance).await };
            self.recording = Some(runtime.spawn(recording));
        }
    }
}
