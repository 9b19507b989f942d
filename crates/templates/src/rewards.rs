//! Where the rewards of blocks go, as an operator writes it: an address or an output descriptor of the network or, for
//! experts, a script. What nobody can spend is refused here: a block that pays it burns its reward.

mod descriptor;
mod payout;
mod payout_lists;

use bitcoin::address::NetworkUnchecked;
use bitcoin::script::Instruction;
use bitcoin::{Address, Network, Script, ScriptBuf, XOnlyPublicKey};

use descriptor::Scripts;
pub use payout::{Payout, PayoutKeys};
pub use payout_lists::{PayoutList, subsidy_at};

/// The script of the one of `payout_address` and `payout_script` that is given in the section of this name.
///
/// # Errors
/// A sentence that names the key and what is wrong with its value.
pub fn payout_script(
    section: &str,
    network: Network,
    address: Option<&str>,
    script: Option<&str>,
) -> Result<ScriptBuf, String> {
    let (key, script) = match (address, script) {
        (Some(address), None) => {
            let key = format!("{section}.payout_address");
            let script = scripts_of(address.trim(), network).and_then(|scripts| match scripts {
                Scripts::One(script) => Ok(script),
                Scripts::Ranged(_) => Err(
                    "the descriptor has a range (*), and these blocks pay one script: write the number of one".to_owned(),
                ),
            });
            (
                key.clone(),
                script.map_err(|reason| format!("{key}: {reason}"))?,
            )
        }
        (None, Some(hex)) => {
            let key = format!("{section}.payout_script");
            let script = ScriptBuf::from_hex(hex).map_err(|_| {
                format!(
                    "{key} is not the hex of a script; an address belongs into {section}.payout_address"
                )
            })?;
            (key, script)
        }
        (None, None) => {
            return Err(format!(
                "{section}.payout_address is missing: the address or descriptor that blocks pay"
            ));
        }
        (Some(_), Some(_)) => {
            return Err(format!(
                "{section}.payout_address and {section}.payout_script are both given: keep one, the address or descriptor"
            ));
        }
    };
    match check_spendable(&script) {
        Ok(()) => Ok(script),
        Err(reason) => Err(format!("{key} {reason}")),
    }
}

/// Shows the operator where rewards go: it is the last moment to notice a mistake.
pub fn tell_payout(script: &Script, network: Network) {
    match Address::from_script(script, network) {
        Ok(address) => tracing::info!(%address, script = %script.to_hex_string(), "blocks pay"),
        // A bare public key has no address.
        Err(_) => tracing::info!(script = %script.to_hex_string(), "blocks pay"),
    }
}

/// The script or the scripts of an address or an output descriptor.
fn scripts_of(text: &str, network: Network) -> Result<Scripts, String> {
    // Before anything else: what follows repeats what it was given.
    if let Some(refusal) = descriptor::holds_private_key(text) {
        return Err(refusal.to_owned());
    }
    match text.contains('(') {
        true => descriptor::scripts_of(text, network),
        false => address_script(text, network).map(Scripts::One),
    }
}

fn address_script(text: &str, network: Network) -> Result<ScriptBuf, String> {
    let parsed: Address<NetworkUnchecked> = text
        .parse()
        .map_err(|error| format!("{text:?} is no address and no descriptor: {error}"))?;
    let address = parsed
        .require_network(network)
        .map_err(|_| format!("{text:?} is not an address of the network {network}"))?;
    Ok(address.script_pubkey())
}

/// Whether a script is one of the standard forms whose coins the owner of a key or script can spend.
///
/// # Errors
/// What is wrong with it; the words follow its key's name.
fn check_spendable(script: &Script) -> Result<(), &'static str> {
    if script.is_empty() {
        return Err("must not be empty");
    }
    if script.instructions().any(|step| step.is_err()) {
        return Err("is cut off: nobody could spend what it is paid");
    }
    if script.is_op_return() {
        return Err("is an OP_RETURN script: what it is paid is burnt");
    }
    if script.is_p2tr() {
        return match taproot_key(script).is_some() {
            true => Ok(()),
            false => Err("has a taproot key that is not on the curve: nobody could spend it"),
        };
    }
    let is_standard = script.p2pk_public_key().is_some()
        || script.is_p2pkh()
        || script.is_p2sh()
        || script.is_p2wpkh()
        || script.is_p2wsh();
    match is_standard {
        true => Ok(()),
        false => Err(
            "is none of the standard scripts (P2WPKH, P2WSH, P2TR, P2PKH, P2SH, P2PK): anybody or nobody could spend it",
        ),
    }
}

fn taproot_key(script: &Script) -> Option<XOnlyPublicKey> {
    let program = script.instructions().filter_map(|step| match step {
        Ok(Instruction::PushBytes(bytes)) if bytes.len() == 32 => Some(bytes.as_bytes()),
        _ => None,
    });
    XOnlyPublicKey::from_slice(program.last()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNET: &str = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";
    const MAINNET: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    const SCRIPT: &str = "0014751e76e8199196d454941c45d1b3a323f1433bd6";

    fn parsed(address: Option<&str>, script: Option<&str>) -> Result<String, String> {
        payout_script("mining", Network::Signet, address, script)
            .map(|script| script.to_hex_string())
    }

    #[test]
    fn an_address_of_the_network_or_a_spendable_script_is_taken() {
        assert_eq!(parsed(Some(SIGNET), None).unwrap(), SCRIPT);
        assert_eq!(parsed(None, Some(SCRIPT)).unwrap(), SCRIPT);
        let generator = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        for script in [
            format!("76a914{}88ac", "11".repeat(20)),
            format!("a914{}87", "11".repeat(20)),
            format!("0020{}", "11".repeat(32)),
            format!("5120{generator}"),
            format!("2102{generator}ac"),
        ] {
            assert_eq!(parsed(None, Some(&script)).unwrap(), script);
        }
    }

    #[test]
    fn what_cannot_be_spent_or_is_elsewhere_is_refused_by_the_name_of_its_key() {
        let off_curve = format!("5120{}", "ff".repeat(32));
        let future = format!("5220{}", "11".repeat(32));
        let refusals = [
            (None, None, "mining.payout_address is missing"),
            (Some(SIGNET), Some(SCRIPT), "both given"),
            (Some(MAINNET), None, "mining.payout_address: "),
            (Some(MAINNET), None, "not an address of the network signet"),
            (Some("tb1q"), None, "mining.payout_address: "),
            (Some(SCRIPT), None, "mining.payout_address: "),
            (None, Some(SIGNET), "belongs into mining.payout_address"),
            (None, Some(""), "mining.payout_script must not be empty"),
            (None, Some("00146a"), "mining.payout_script is cut off"),
            (
                None,
                Some("6a0548656c6c6f"),
                "mining.payout_script is an OP_RETURN",
            ),
            (None, Some("51"), "mining.payout_script is none of"),
            (None, Some(off_curve.as_str()), "not on the curve"),
            (
                None,
                Some(future.as_str()),
                "mining.payout_script is none of",
            ),
            (None, Some("51024e73"), "mining.payout_script is none of"),
        ];
        for (address, script, words) in refusals {
            let refused = parsed(address, script).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
