//! What protects a named cluster as long as a process streams it: the stream, and its jobs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backup::stream::{StreamWatch, Streamer, StreamerConfig};
use postgres_physical::server::{Binaries, OsUser};

use crate::{
    backup_request::{Reading, ReadingSelection},
    clusters::NamedCluster,
    health::StreamMonitor,
    jobs::{Screens, settings::runs_by_itself},
    plan::{Host, Plan},
    primary_repository::PrimaryRepository,
};

const TURN: Duration = Duration::from_secs(1);
/// How long the last append may take at the end. A repository that hangs does not hold up the stop; PostgreSQL keeps
/// what it has not got.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct ClusterProtection<'a> {
    cluster: &'a NamedCluster,
    own: &'a PrimaryRepository,
    monitor: StreamMonitor,
    runtime: tokio::runtime::Handle,
    screens: Screens,
    binaries: Option<Binaries>,
    user: Option<OsUser>,
    /// None while an operator pauses it.
    streamer: Option<Streamer>,
    plan: Option<Plan>,
    next_turn: Instant,
}

impl<'a> ClusterProtection<'a> {
    pub fn start(
        cluster: &'a NamedCluster,
        own: &'a PrimaryRepository,
        monitor: StreamMonitor,
        runtime: tokio::runtime::Handle,
        screens: Screens,
    ) -> Self {
        let mut protection = Self {
            cluster,
            own,
            monitor,
            runtime,
            screens,
            // Only restore tests need them; without them the plan says so.
            binaries: Binaries::find(cluster.binaries.as_deref()).ok(),
            user: OsUser::for_server().ok(),
            streamer: None,
            plan: None,
            next_turn: Instant::now(),
        };
        protection.stream();
        protection
    }

    fn stream(&mut self) {
        let (connect, slot) = (self.cluster.connect.clone(), &self.cluster.slot);
        let streamer = Streamer::start(StreamerConfig::new(
            connect.with_application_name(slot),
            slot,
            Arc::clone(&self.own.store),
            self.own.keys.public.clone(),
        ));
        self.monitor.follow(Some(streamer.watch()));
        self.streamer = Some(streamer);
    }

    /// None while it is paused.
    pub fn watch(&self) -> Option<StreamWatch> {
        self.streamer.as_ref().map(Streamer::watch)
    }

    /// Called often: what is due once a second, and at once what a person waits for.
    pub fn turn(&mut self) {
        let is_asked = self.plan.as_ref().is_some_and(Plan::is_asked);
        if !is_asked && Instant::now() < self.next_turn {
            return;
        }
        self.next_turn = Instant::now() + TURN;
        let watch = self.watch();
        let state = watch.as_ref().map(StreamWatch::state).unwrap_or_default();
        let host = Host {
            instance: &self.cluster.instance,
            repository: &self.own.repository,
            keys: &self.own.keys,
            binaries: self.binaries.as_ref(),
            user: self.user.as_ref(),
            config: &self.cluster.plan,
            connect: self.cluster.connect.clone().with_database("postgres"),
            definitions: None,
            monitor: &self.monitor,
            runtime: &self.runtime,
            stream: watch,
            attached: state.attached,
            screens: self.screens,
            label: "by the plan",
            reading: Reading::new(&self.cluster.plan, ReadingSelection::default()),
        };
        if self.plan.is_none() {
            match Plan::begin(&host) {
                Ok(plan) => self.plan = Some(plan),
                Err(error) => tracing::error!(%error, "the plan cannot begin; it is tried again"),
            }
        }
        let Some(plan) = &mut self.plan else { return };
        // Where backups are taken by hand the operator is told instead.
        if state.needs_full_backup && state.attached && runs_by_itself(&self.cluster.plan) {
            plan.need_full_backup("after a hole in the WAL");
        }
        plan.turn(&host);
        let is_paused = plan.is_stream_paused();
        match (is_paused, self.streamer.take()) {
            (true, Some(streamer)) => {
                tracing::warn!("the WAL stream is paused: nothing protects what is committed now");
                self.monitor.follow(None);
                streamer.stop_within(STOP_TIMEOUT);
            }
            (false, None) => self.stream(),
            (_, unchanged) => self.streamer = unchanged,
        }
    }

    pub fn stop(mut self) {
        if let Some(plan) = &mut self.plan {
            plan.end();
        }
        self.monitor.follow(None);
        if let Some(streamer) = self.streamer {
            streamer.stop_within(STOP_TIMEOUT);
        }
    }
}
