//! `dovetail credit get` and `dovetail credit verify`.

use std::process::ExitCode;
use std::time::Duration;

use dovetail_agent::PoolAddress;
use dovetail_agent::credit::{
    self, CreditClient, CreditFile, CreditReport, PartSummary, SampleReport, SampleTerms,
};
use dovetail_console::{OutputError, print_line, print_note};
use dovetail_units::Msat;

use super::{checked, print_json};
use crate::args::{CreditGetArgs, CreditSampleArgs, CreditVerifyArgs};

pub(crate) async fn get(pool: &PoolAddress, args: &CreditGetArgs) -> anyhow::Result<ExitCode> {
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

pub(crate) async fn sample(
    pool: &PoolAddress,
    args: &CreditSampleArgs,
) -> anyhow::Result<ExitCode> {
    let client = CreditClient::connect(pool).await?;
    let terms = SampleTerms {
        points: args.points,
        pool_key: args.pool_key.map(|key| key.0),
        tag: args.tag.clone(),
        scripts: args.pays.clone(),
        bits: args.bits.clone(),
    };
    let time_max = Duration::from_secs(args.timeout);
    let report = client.sample(args.block, &terms, time_max).await?;
    if args.json {
        print_json(&report)?;
    } else {
        print_sample(&report)?;
    }
    Ok(match report.verified {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn print_sample(report: &SampleReport) -> Result<(), OutputError> {
    for line in &report.lines {
        print_line(checked(line.check.claim(), &line.outcome))?;
    }
    print_line("")?;
    print_line(format_args!(
        "block       {} at height {}",
        report.block, report.height
    ))?;
    print_line(format_args!(
        "window      {} slice(s) of weight {}",
        report.window_slices, report.window_weight
    ))?;
    print_line(format_args!(
        "points      {} of {} shown, on {} share(s) of {} account(s)",
        report.shown, report.points, report.shares, report.accounts
    ))?;
    for point in &report.failed {
        let (number, check) = (point.number, point.check.name());
        print_line(format_args!("point {number:<6}{check}: {}", point.why))?;
    }
    for (bits, points) in &report.bits {
        print_line(format_args!("target      {bits}, {points} point(s)"))?;
    }
    for (script, points) in &report.scripts {
        print_line(format_args!("pays        {script}, {points} point(s)"))?;
    }
    print_line(format_args!(
        "found with  {:.1} % if a hundredth of the window were fake, 95 % if {:.2} % were",
        report.percent_found_with * 100.0,
        report.part_found_with_95_percent * 100.0
    ))?;
    match report.first_failure {
        None => print_line("The sample holds."),
        Some(check) => print_line(format_args!("The sample does not hold: {}.", check.name())),
    }
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
    if let Some(stated) = &report.stated {
        print_line(format_args!(
            "stated      {}, one of {} part(s) of statement {}",
            stated.amount_msat, stated.accounts, stated.hash
        ))?;
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
    if !part.window_is_full {
        print_line("window      not full: all slices of a young pool, from slice 0 on")?;
    }
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
