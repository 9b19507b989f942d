//! `dovetail payout destination get` and `dovetail payout destination set`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use dovetail_agent::PoolAddress;
use dovetail_agent::payouts::{PaidWhere, PayeeClient, Terms};
use dovetail_console::{OutputError, print_line, print_note};
use dovetail_payee::{Owner, PayTo, PayToKind, Statement};
use serde_json::json;

use super::print_json;
use crate::args::{DestinationGetArgs, DestinationSetArgs};

/// A key file has 64 hexadecimal digits.
const KEY_FILE_BYTES_MAX: u64 = 256;

pub(crate) async fn get(pool: &PoolAddress, args: &DestinationGetArgs) -> anyhow::Result<ExitCode> {
    let client = PayeeClient::connect(pool).await?;
    let paid = client.paid_where(&args.account).await?;
    if args.json {
        print_json(&json!({
            "pool_key": hex::encode(paid.pool_key),
            "network": paid.network.to_string(),
            "hold_s": paid.hold_s,
            "threshold_min_msat": paid.threshold_min_msat,
            "active": paid.active,
            "pending": paid.pending,
            "tries": paid.tries,
            "failure_class": paid.failure_class,
            "next_try_unix": paid.next_try_unix,
            "can_be_set": paid.can_be_set,
        }))?;
    } else {
        print(&paid)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn set(pool: &PoolAddress, args: &DestinationSetArgs) -> anyhow::Result<ExitCode> {
    let keys = args.worker_key_file.as_deref().map(read_keys).transpose()?;
    let account = account(args, keys.as_ref())?;
    let client = PayeeClient::connect(pool).await?;
    let paid = client.paid_where(&account).await?;
    if let Some(expected) = args.pool_key {
        ensure!(
            expected.0 == paid.pool_key,
            "this pool's key is {}, not the one that --pool-key names: nothing was signed",
            hex::encode(paid.pool_key)
        );
    }
    let statement = statement(args, account, &paid)?;
    let proof = match (&keys, &args.signature) {
        (Some(keys), _) => statement.sign(keys).to_vec(),
        (None, Some(signature)) => decode(signature)?,
        (None, None) => return show_message(&statement),
    };
    // What the pool would say, without sending it.
    statement.verify(&proof)?;
    let taken = client.state(&statement, &proof).await?;
    if args.json {
        print_json(&taken)?;
    } else {
        print_terms("paid", &taken)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whose destination it is: the key's, or the one that is named.
fn account(args: &DestinationSetArgs, keys: Option<&Keypair>) -> anyhow::Result<String> {
    let of_key = keys.map(|keys| keys.x_only_public_key().0.to_string());
    match (&args.account, of_key) {
        (Some(named), Some(key)) if !named.eq_ignore_ascii_case(&key) => {
            bail!("--worker-key-file holds the key {key}, and --account names another account")
        }
        (_, Some(key)) => Ok(key),
        (Some(named), None) => Ok(named.clone()),
        (None, None) => bail!("name the account: --account, or --worker-key-file for a worker's"),
    }
}

fn statement(
    args: &DestinationSetArgs,
    account: String,
    paid: &PaidWhere,
) -> anyhow::Result<Statement> {
    let network = paid.network;
    let pay_to = PayTo::parse(args.kind.0, &args.to, network).context("--to")?;
    let fallback = match &args.fallback {
        Some(address) => {
            let address =
                PayTo::parse(PayToKind::Onchain, address, network).context("--fallback")?;
            Some(address.value().to_owned())
        }
        None => None,
    };
    // Bech32 in upper case is the account in lower case.
    let account = match PayTo::parse(PayToKind::Onchain, &account, network) {
        Ok(address) => address.value().to_owned(),
        Err(_) => account,
    };
    Ok(Statement {
        pool: paid.pool_key,
        network,
        account,
        pay_to,
        fallback,
        threshold_msat: args.threshold_msat,
        schedule: args.schedule,
        made_unix: args.made.unwrap_or_else(now),
    })
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// An address signs on its wallet: this is what, and how to go on.
fn show_message(statement: &Statement) -> anyhow::Result<ExitCode> {
    match Owner::of(&statement.account, statement.network)? {
        Owner::Worker(_) => {
            bail!("a worker's key signs here: name its file with --worker-key-file")
        }
        Owner::Address(_) => {}
    }
    print_line(statement.message())?;
    print_note(format_args!(
        "sign this line as a message with the wallet of {} (BIP 322, simple), within a day; then give the same command \
         with --made {} --signature SIGNATURE",
        statement.account, statement.made_unix
    ));
    Ok(ExitCode::SUCCESS)
}

/// A signature as wallets show it. Newer ones say in front which form it has.
fn decode(signature: &str) -> anyhow::Result<Vec<u8>> {
    let signature = signature.trim();
    let signature = signature.strip_prefix("smp").unwrap_or(signature);
    let decoded = STANDARD.decode(signature);
    decoded.context("--signature is not in base64: a simple signature of BIP 322 is")
}

/// The key's words are in no error.
fn read_keys(path: &Path) -> anyhow::Result<Keypair> {
    let size = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    let is_small = size.len() <= KEY_FILE_BYTES_MAX;
    ensure!(is_small, "{} is no worker's key file", path.display());
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let Ok(secret) = text.trim().parse::<SecretKey>() else {
        bail!("{} is no worker's key file: 64 hex digits", path.display());
    };
    Ok(Keypair::from_secret_key(SECP256K1, &secret))
}

fn print(paid: &PaidWhere) -> Result<(), OutputError> {
    match &paid.active {
        Some(active) => print_terms("paid", active)?,
        None => print_line("not paid: nothing says where to that this pool can pay")?,
    }
    if let Some(pending) = &paid.pending {
        print_terms("CHANGE", pending)?;
        print_note(
            "if you did not ask for the change, somebody has your key: state your old destination again at once",
        );
    }
    if paid.tries > 0 {
        let wait = paid.next_try_unix.saturating_sub(now());
        print_line(format_args!(
            "failed      {} time(s) in a row ({}), the next try is in {wait} s",
            paid.tries, paid.failure_class
        ))?;
    } else if !paid.failure_class.is_empty() {
        print_line(format_args!("class       {}", paid.failure_class))?;
    }
    print_line(format_args!(
        "can change  {}",
        match paid.can_be_set {
            true => "yes, by who signs for the account",
            false => "no: the account's name can prove nothing",
        }
    ))?;
    print_line(format_args!("pool        {}", hex::encode(paid.pool_key)))
}

fn print_terms(what: &str, terms: &Terms) -> Result<(), OutputError> {
    let kind = match terms.kind {
        "" => "in a way that this program does not know",
        kind => kind,
    };
    print_line(format_args!("{what:<11} {} ({kind})", terms.destination))?;
    if !terms.fallback.is_empty() {
        print_line(format_args!("  else      {}", terms.fallback))?;
    }
    match terms.threshold_msat {
        0 => print_line("  from      what the pool pays at least")?,
        msat => print_line(format_args!("  from      {msat} msat"))?,
    }
    print_line(format_args!("  schedule  {}", terms.schedule))?;
    let wait = terms.active_from_unix.saturating_sub(now());
    match (wait, terms.made_unix) {
        (_, 0) => print_line("  since     always: the account's name says so"),
        (0, _) => print_line("  since     it was stated"),
        (wait, _) => print_line(format_args!("  holds in  {wait} s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read_as_wallets_write_them() {
        assert_eq!(decode(" AkcwRA==\n").unwrap(), [2, 0x47, 0x30, 0x44]);
        assert_eq!(decode("smpAkcwRA==").unwrap(), [2, 0x47, 0x30, 0x44]);
        assert!(decode("not base64").is_err());
    }

    #[test]
    fn a_key_file_is_read_and_its_content_is_in_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.key");
        std::fs::write(&path, format!("{}\n", "01".repeat(32))).unwrap();
        assert!(read_keys(&path).is_ok());
        for content in ["5ec2e7".repeat(10), "5ec2e7".repeat(100)] {
            std::fs::write(&path, content).unwrap();
            let error = format!("{:#}", read_keys(&path).unwrap_err());
            assert!(!error.contains("5ec2e7"), "{error}");
        }
    }
}
