//! `dovetail receipt get` and `dovetail receipt verify`.

use std::{process::ExitCode, time::Duration};

use anyhow::{bail, ensure};
use dovetail_agent::{
    AgentClient, PoolAddress, ReceiptFile,
    receipt_file::{self, Kept},
    verify::{self, Check, Known, Report},
};
use dovetail_console::{OutputError, Printer, print_line, print_note};

use super::{checked, model_file, print_json};
use crate::args::{ReceiptGetArgs, ReceiptTextArgs, ReceiptVerifyArgs};

pub(crate) async fn get(pool: &PoolAddress, args: &ReceiptGetArgs) -> anyhow::Result<ExitCode> {
    // Read first: a wrong file should not cost a long wait.
    let mut file = args.into.as_deref().map(ReceiptFile::load).transpose()?;
    if let Some(file) = &file {
        ensure!(
            file.task_id == args.task_id,
            "the file is about task {}",
            file.task_id
        );
    }
    let client = AgentClient::connect(pool).await?;
    let wait_max = Duration::from_secs(args.wait);
    let receipt_json = match args.wait {
        0 => client.receipt(args.task_id).await?,
        _ => client.wait_for_receipt(args.task_id, wait_max).await?,
    };
    match (&mut file, &args.into) {
        (Some(file), Some(path)) => {
            file.set_receipt(&receipt_json)?;
            file.save(path)?;
            print_note(format_args!("receipt put into {}", path.display()));
        }
        _ => print_line(receipt_json)?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn verify(args: &ReceiptVerifyArgs) -> anyhow::Result<ExitCode> {
    let kept = receipt_file::load(&args.file)?;
    let asked = match (&args.model_file, &kept) {
        (None, _) => None,
        (Some(path), Kept::File(file)) => Some((path.as_path(), file.model_id)),
        (Some(_), Kept::ReceiptOnly(_)) => {
            bail!("the file has no prompt to encode: leave --model-file and --replay out")
        }
    };
    let (mut vocabulary, mut replayer) = (None, None);
    match asked {
        Some((path, model)) if args.replay => replayer = Some(model_file::load_whole(path, model)?),
        Some((path, model)) => vocabulary = Some(model_file::load(path, model)?),
        None => {}
    }
    let known = Known {
        pool_key: args.pool_key.map(|key| key.0),
        vocabulary: vocabulary.as_ref(),
        replayer: replayer.as_ref(),
    };
    let report = verify::verify_with(&kept, &known);
    if args.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    // Who asks for a replay is not served by the rest.
    match args.replay && !report.is_replayed() {
        true => Ok(ExitCode::FAILURE),
        false => Ok(exit_code(&report)),
    }
}

/// The text of the tokens of a receipt that holds. What the pool showed as the text plays no part in it.
pub(crate) fn text(args: &ReceiptTextArgs) -> anyhow::Result<ExitCode> {
    let file = ReceiptFile::load(&args.file)?;
    let tokens = file.output_tokens.clone();
    let model_id = file.model_id;
    let kept = Kept::File(Box::new(file));
    let report = verify::verify(&kept, args.pool_key.map(|key| key.0));
    if let Some(check) = report.first_failure {
        bail!("the receipt does not hold: {}", name(check));
    }
    let vocabulary = model_file::load(&args.model_file, model_id)?;
    let mut printer = Printer::stdout();
    printer
        .write(&vocabulary.decode(&tokens))
        .and_then(|()| printer.finish())
        .map_err(OutputError::from)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn exit_code(report: &Report) -> ExitCode {
    if report.verified {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print(report: &Report) -> Result<(), OutputError> {
    for line in &report.lines {
        print_line(checked(line.check.claim(), &line.outcome))?;
    }
    print_line("")?;
    if let Some(key) = &report.pool_key {
        print_line(format_args!("signed by   {key}"))?;
    }
    if let Some(hash) = &report.header_hash {
        print_line(format_args!("header hash {hash}"))?;
    }
    if let Some(cost) = &report.cost {
        print_line(format_args!(
            "price       {}: {} tokens of input at {} msat a million, {} of output at {}",
            cost.price_msat,
            cost.input_tokens,
            cost.prices.input_msat_per_million(),
            cost.output_tokens,
            cost.prices.output_msat_per_million(),
        ))?;
    }
    match report.first_failure {
        None => print_line("The receipt holds.")?,
        // All that the pool signed is there. It is the answer that is wrong.
        Some(Check::Replay) => print_line("The receipt is genuine, and the answer is not.")?,
        Some(check) => print_line(format_args!("The receipt does not hold: {}.", name(check)))?,
    }
    match &report.replay {
        Some(replay) => print_line(&replay.sentence),
        None => Ok(()),
    }
}

/// The check's name as `--json` prints it.
pub(crate) fn name(check: Check) -> String {
    serde_json::to_value(check)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_else(|| format!("{check:?}"))
}
