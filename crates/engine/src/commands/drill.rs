//! `bre drill run SCENARIO`, and the hidden command that is one of its clients.

use std::{process::ExitCode, sync::Arc};

use clap::CommandFactory;
use serde::Serialize;

use assurance::drills::{Fault, Proxy, Report, client::Client, database_loss::DatabaseLoss};
use host::location::Location;
use terminal::{self, KeyValue, Table};

use crate::{
    cli::{Cli, DatabaseLossArgs, DrillClientArgs, DrillCommand, DrillScenario},
    error::Error,
};

pub(crate) fn run(json: bool, command: DrillCommand) -> Result<ExitCode, Error> {
    let DrillCommand::Run(scenario) = command else {
        list(json);
        return Ok(ExitCode::SUCCESS);
    };
    let DrillScenario::DatabaseLoss(args) = *scenario;
    let report = drill(args)?.run(&mut |step| terminal::note(step))?;
    terminal::result(json, &report, || text(&report));
    Ok(if report.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the command line itself knows of them.
fn list(json: bool) {
    let run = Cli::command();
    let run = run
        .find_subcommand("drill")
        .and_then(|drill| drill.find_subcommand("run"));
    let drills = run.into_iter().flat_map(clap::Command::get_subcommands);
    let drills = drills.filter(|drill| drill.get_name() != "help");
    let told = |drill: &clap::Command| Scenario {
        name: drill.get_name().to_owned(),
        about: drill
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default(),
    };
    let drills: Vec<Scenario> = drills.map(told).collect();
    terminal::result(json, &drills, || {
        let mut table = Table::new(&["drill", "what it does"]);
        for drill in &drills {
            table.row([drill.name.clone(), drill.about.clone()]);
        }
        table.text()
    });
}

#[derive(Debug, Serialize)]
struct Scenario {
    name: String,
    about: String,
}

fn drill(args: DatabaseLossArgs) -> Result<DatabaseLoss, Error> {
    let bre = std::env::current_exe().map_err(Error::file("cannot find", "this program"))?;
    let seed = args.seed.unwrap_or_else(rand::random);
    let place = format!("drill-{seed}-{}", std::process::id());
    let mut repository = args.repository.map(|location| location.below(&place));
    let proxy = proxy(args.fault, repository.as_mut())?;
    Ok(DatabaseLoss {
        bre,
        repository: repository.map(|location| location.to_string()),
        strict: args.strict,
        and_engine: args.and_engine,
        standby: args.standby,
        fault: args.fault,
        proxy,
        clients: usize::from(args.clients),
        seconds: args.seconds,
        seed,
        rates_file: args.rates_file,
        work: args.work,
        rto_seconds_max: args.rto_seconds_max,
    })
}

/// Between the throw-away system and its S3 server, if a fault is to strike there: the location then leads through it.
fn proxy(
    fault: Option<Fault>,
    repository: Option<&mut Location>,
) -> Result<Option<Arc<Proxy>>, Error> {
    let Some(fault) = fault.filter(|fault| *fault != Fault::Kills) else {
        return Ok(None);
    };
    let refused = |reason: &str| Error::argument("fault", fault.to_string(), reason.to_owned());
    match repository {
        Some(Location::S3(location)) => {
            let server = location.endpoint.as_deref().unwrap_or_default();
            let Some(server) = server.strip_prefix("http://") else {
                return Err(refused(
                    "it needs a server that is named by &endpoint=http://HOST:PORT, so that a proxy can stand before it",
                ));
            };
            let proxy = Proxy::to(server.trim_end_matches('/'))?;
            location.endpoint = Some(proxy.url());
            Ok(Some(Arc::new(proxy)))
        }
        Some(Location::Folder(_)) if !fault.needs_a_server() => Err(refused(
            "leave --repository away: only the drill's own folder is taken away",
        )),
        _ if fault.needs_a_server() => Err(refused(
            "it is made before a server: name one with --repository s3://…&endpoint=http://HOST:PORT",
        )),
        _ => Ok(None),
    }
}

fn text(report: &Report) -> String {
    let mut facts = KeyValue::new();
    facts
        .row("result", if report.passed { "passed" } else { "FAILED" })
        .row(
            "drill",
            format!(
                "{} in {} mode, {} clients, seed {}",
                report.scenario, report.mode, report.clients, report.seed
            ),
        )
        .row("RPO", format!("{:.3} s", report.rpo_seconds))
        .row("RTO", format!("{:.3} s", report.rto_seconds))
        .row(
            "answers",
            format!(
                "{} acknowledged, {} recovered, {} lost, {} in doubt ({} of them on record)",
                report.acknowledged,
                report.recovered,
                report.lost,
                report.in_doubt,
                report.in_doubt_recorded
            ),
        )
        .row(
            "audit log",
            format!(
                "{}, {} entries",
                if report.audit_verified {
                    "verified"
                } else {
                    "NOT VERIFIED"
                },
                report.audit_entries
            ),
        )
        .row(
            "replayed",
            format!(
                "{} quotes, {} mismatches",
                report.replayed, report.replay_mismatches
            ),
        )
        .rows("FAILURE", &report.failures);
    facts.text()
}

pub(crate) async fn client(args: DrillClientArgs) -> Result<(), Error> {
    let client = Client {
        url: args.url,
        api_key_file: args.api_key_file,
        client_id: args.client,
        ledger: args.ledger,
        seed: args.seed,
    };
    Ok(client.run().await?)
}
