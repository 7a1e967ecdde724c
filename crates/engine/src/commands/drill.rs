//! `bre drill SCENARIO`, and the hidden command that is one of its clients.

use std::process::ExitCode;

use assurance::drills::{Report, client::Client, database_loss::DatabaseLoss};

use crate::{
    cli::{DatabaseLossArgs, DrillClientArgs, DrillCommand},
    error::Error,
    terminal,
};

pub(crate) fn run(json: bool, command: DrillCommand) -> Result<ExitCode, Error> {
    let DrillCommand::DatabaseLoss(args) = command;
    let report = drill(args)?.run(&mut |step| terminal::note(step))?;
    terminal::result(json, &report, || sentences(&report));
    Ok(if report.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn drill(args: DatabaseLossArgs) -> Result<DatabaseLoss, Error> {
    let bre = std::env::current_exe().map_err(Error::file("cannot find", "this program"))?;
    let seed = args.seed.unwrap_or_else(rand::random);
    let place = format!("drill-{seed}-{}", std::process::id());
    let repository = args.repository.map(|location| location.below(&place));
    Ok(DatabaseLoss {
        bre,
        repository: repository.map(|location| location.to_string()),
        strict: args.strict,
        and_engine: args.and_engine,
        spare: args.spare,
        clients: usize::from(args.clients),
        seconds: args.seconds,
        seed,
        book: args.book,
        work: args.work,
        rto_seconds_max: args.rto_seconds_max,
    })
}

fn sentences(report: &Report) -> String {
    let mut text = format!(
        "{} ({} mode, {} clients, seed {})\n\
         acknowledged {}, recovered {}, lost {}, in doubt {} (of them on record {})\n\
         RPO {:.3} s, RTO {:.3} s; audit log {} ({} entries); replayed {}, mismatches {}\n{}\n",
        report.scenario,
        report.mode,
        report.clients,
        report.seed,
        report.acknowledged,
        report.recovered,
        report.lost,
        report.in_doubt,
        report.in_doubt_recorded,
        report.rpo_seconds,
        report.rto_seconds,
        if report.audit_verified {
            "verified"
        } else {
            "NOT VERIFIED"
        },
        report.audit_entries,
        report.replayed,
        report.replay_mismatches,
        if report.passed { "passed" } else { "FAILED" },
    );
    for failure in &report.failures {
        text.push_str(&format!("  {failure}\n"));
    }
    text
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
