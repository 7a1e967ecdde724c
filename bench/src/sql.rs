//! SQL alone: rows of 64 clients gathered into one statement, against one statement a row on 64 connections.

use std::{
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};
use tokio_postgres::{Client, NoTls};

use crate::{
    cpu,
    system::{Result, System},
    table::Row,
};

const CLIENTS: usize = 64;
const TIME: Duration = Duration::from_secs(3);
const ENTRY_BYTES: usize = 1500;

const TABLES: &str = "CREATE TABLE sql_log (position bigint PRIMARY KEY, recorded_at timestamptz DEFAULT now(), client_id text, \
     canonical bytea, hash bytea); CREATE TABLE sql_quotes (position bigint PRIMARY KEY, ticker text, loan_days integer)";
const SINGLE: &str = "WITH logged AS (INSERT INTO sql_log (position, client_id, canonical, hash) VALUES ($1, $2, $3, $4)) \
     INSERT INTO sql_quotes VALUES ($1, $5, $6)";
const BATCH: &str = "WITH logged AS (INSERT INTO sql_log (position, client_id, canonical, hash) \
     SELECT UNNEST($1::bigint[]), UNNEST($2::text[]), UNNEST($3::bytea[]), UNNEST($4::bytea[])) \
     INSERT INTO sql_quotes SELECT UNNEST($1::bigint[]), UNNEST($5::text[]), UNNEST($6::integer[])";

pub(crate) async fn run(bre: &Path, rounds: usize) -> Result<Vec<Row>> {
    let system = System::start(bre, false)?;
    system.psql(TABLES)?;
    let url = &system.ready.database_url;
    let position = Arc::new(AtomicI64::new(0));
    let (mut rates, mut tails, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    // Not counted: a cluster that has been running has segments of WAL to use again, and does not write each as zeros
    // first.
    grouped(url, &position).await?;
    one_by_one(url, &position).await?;
    for round in 0..rounds {
        let (ours, theirs) = match round % 2 {
            0 => {
                let ours = turn(&system, grouped(url, &position)).await?;
                (ours, turn(&system, one_by_one(url, &position)).await?)
            }
            _ => {
                let theirs = turn(&system, one_by_one(url, &position)).await?;
                (turn(&system, grouped(url, &position)).await?, theirs)
            }
        };
        costs.push((ours.1, theirs.1));
        rates.push((ours.0.rows_a_second, theirs.0.rows_a_second));
        tails.push((ours.0.p99_millis, theirs.0.p99_millis));
    }
    let case = "durable rows by SQL alone, 64 clients";
    let peer = "one statement and commit a row, 64 connections";
    Ok(vec![
        Row::new(case, "rows", "1/s", peer, rates),
        Row::new(case, "p99 of a row", "ms", peer, tails),
        Row::new(
            case,
            "processor time of the database",
            "µs each",
            peer,
            costs,
        ),
    ])
}

/// What it came to, and the processor time of a row.
async fn turn(
    system: &System,
    load: impl Future<Output = Result<Outcome>>,
) -> Result<(Outcome, f64)> {
    system.psql("CHECKPOINT")?;
    let before = cpu::micros_of(system.pid());
    let outcome = load.await?;
    let cost = cpu::micros_each(before, system.pid(), outcome.rows);
    Ok((outcome, cost))
}

struct Outcome {
    rows: f64,
    rows_a_second: f64,
    p99_millis: f64,
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("SET synchronous_commit = on").await?;
    Ok(client)
}

struct Waiting {
    position: i64,
    done: oneshot::Sender<()>,
}

/// All that waits goes into one statement; what arrives meanwhile waits for the next.
async fn grouped(url: &str, position: &Arc<AtomicI64>) -> Result<Outcome> {
    let client = connect(url).await?;
    let statement = client.prepare(BATCH).await?;
    let (sender, mut rows) = mpsc::channel::<Waiting>(1024);
    let writer = tokio::spawn(async move {
        let (entry, hash) = (vec![0xab_u8; ENTRY_BYTES], vec![0xcd_u8; 32]);
        while let Some(first) = rows.recv().await {
            let mut batch = vec![first];
            // Those whose rows were in the last commit are about to send their next.
            tokio::task::yield_now().await;
            while let Ok(next) = rows.try_recv() {
                batch.push(next);
            }
            let count = batch.len();
            let positions: Vec<i64> = batch.iter().map(|row| row.position).collect();
            client
                .execute(
                    &statement,
                    &[
                        &positions,
                        &vec!["standard"; count],
                        &vec![entry.as_slice(); count],
                        &vec![hash.as_slice(); count],
                        &vec!["GME"; count],
                        &vec![30_i32; count],
                    ],
                )
                .await?;
            for row in batch {
                let _ = row.done.send(());
            }
        }
        Ok::<_, tokio_postgres::Error>(())
    });
    let outcome = load(|_| {
        let (sender, position) = (sender.clone(), Arc::clone(position));
        move || {
            let (sender, position) = (sender.clone(), Arc::clone(&position));
            async move {
                let (done, written) = oneshot::channel();
                let position = position.fetch_add(1, Ordering::Relaxed);
                sender.send(Waiting { position, done }).await.is_ok() && written.await.is_ok()
            }
        }
    })
    .await?;
    drop(sender);
    writer.await??;
    Ok(outcome)
}

async fn one_by_one(url: &str, position: &Arc<AtomicI64>) -> Result<Outcome> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = connect(url).await?;
        let statement = client.prepare(SINGLE).await?;
        clients.push(Arc::new((client, statement)));
    }
    load(|number| {
        let (client, position) = (Arc::clone(&clients[number]), Arc::clone(position));
        move || {
            let (client, position) = (Arc::clone(&client), Arc::clone(&position));
            async move {
                let (entry, hash) = ([0xab_u8; ENTRY_BYTES], [0xcd_u8; 32]);
                let position = position.fetch_add(1, Ordering::Relaxed);
                client
                    .0
                    .execute(
                        &client.1,
                        &[
                            &position,
                            &"standard",
                            &entry.as_slice(),
                            &hash.as_slice(),
                            &"GME",
                            &30_i32,
                        ],
                    )
                    .await
                    .is_ok()
            }
        }
    })
    .await
}

/// Every client writes one row after the other until the time is up.
#[allow(clippy::float_arithmetic, reason = "measurements")]
async fn load<W, F>(client: impl Fn(usize) -> W) -> Result<Outcome>
where
    W: Fn() -> F + Send + 'static,
    F: Future<Output = bool> + Send,
{
    let began = Instant::now();
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let write = client(number);
            tokio::spawn(async move {
                let mut times = Vec::new();
                while began.elapsed() < TIME {
                    let asked = Instant::now();
                    if !write().await {
                        return None;
                    }
                    times.push(asked.elapsed());
                }
                Some(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await?.ok_or("a row was not written")?);
    }
    let seconds = began.elapsed().as_secs_f64();
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied();
    let rows = u32::try_from(times.len()).map(f64::from)?;
    Ok(Outcome {
        rows,
        rows_a_second: rows / seconds,
        p99_millis: p99.unwrap_or_default().as_secs_f64() * 1000.0,
    })
}
