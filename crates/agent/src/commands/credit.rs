//! `dovetail credit get` and `dovetail credit verify`.

use std::process::ExitCode;
use std::time::Duration;

use dovetail_agent::credit::{self, CreditClient, CreditFile, CreditReport, PartSummary};
use dovetail_console::{OutputError, print_line, print_note};
use dovetail_units::Msat;

use super::{checked, print_json};
use crate::args::{CreditGetArgs, CreditVerifyArgs};

pub(crate) async fn get(pool: &str, args: &CreditGetArgs) -> anyhow::Result<ExitCode> {
    let client = CreditClient::connect(pool).await?;
    let time_max = Duration::from_secs(args.timeout);
    let file = client.fetch(&args.account, args.block, time_max).await?;
    let block = &file.block;
    match &args.into {
        None => print_line(file.to_json()?)?,
        Some(path) => {
            file.save(path)?;
            print_note(format_args!(
                "block {} at height {} ({}) put into {}",
                block.hash,
                block.height,
                block.state.name(),
                path.display()
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn verify(args: &CreditVerifyArgs) -> anyhow::Result<ExitCode> {
    let file = CreditFile::load(&args.file)?;
    let pool_key = args.pool_key.map(|key| key.0);
    let report = credit::check(&file, pool_key, args.amount.map(Msat::new));
    if args.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(match report.verified {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn print(report: &CreditReport) -> Result<(), OutputError> {
    for line in &report.lines {
        print_line(checked(line.check.claim(), &line.outcome))?;
    }
    print_line("")?;
    print_line(format_args!("account     {}", report.account))?;
    print_line(format_args!(
        "block       {} at height {}",
        report.block, report.height
    ))?;
    if let Some(signer) = &report.signer {
        print_line(format_args!("signed by   {signer}"))?;
    }
    if let Some(part) = &report.part {
        print_part(part)?;
    }
    match report.first_failure {
        None => print_line("The part holds."),
        Some(check) => print_line(format_args!("The part does not hold: {}.", check.name())),
    }
}

fn print_part(part: &PartSummary) -> Result<(), OutputError> {
    print_line(format_args!("newest root {}", part.newest_root))?;
    print_line(format_args!(
        "work        {} share(s) in {} of {} slice(s)",
        part.shares, part.slices, part.window_slices
    ))?;
    print_line(format_args!(
        "weight      {} of {}",
        part.weight, part.window_weight
    ))?;
    let amount = match part.least_msat == part.most_msat {
        true => part.least_msat.to_string(),
        false => format!("{} or one more", part.least_msat),
    };
    print_line(format_args!("part        {amount}, of {}", part.rest_msat))
}
