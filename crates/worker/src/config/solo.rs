//! `[solo]`: mining without a pool.

use bitcoin::{Network, ScriptBuf};
use dovetail_templates::payout_script;
use serde::Deserialize;

/// Mining without a pool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Solo {
    /// The network whose addresses hold. It must be the node's.
    pub network: Network,
    /// Whom its blocks pay: an address, or an output descriptor of one script.
    pub payout_address: Option<String>,
    /// In place of the address, for experts: the hex of a scriptPubKey.
    pub payout_script: Option<String>,
}

impl Solo {
    /// The script that its blocks pay.
    ///
    /// # Errors
    /// A sentence that names the key and what is wrong with it.
    pub fn payout(&self) -> Result<ScriptBuf, String> {
        let (address, script) = (&self.payout_address, &self.payout_script);
        payout_script("solo", self.network, address.as_deref(), script.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigRefused};

    fn validated(solo: &str) -> Result<(), ConfigRefused> {
        let config: Config = toml::from_str(&format!(
            "[worker]\nkey_file = \"k\"\nmodels = [\"m\"]\n[solo]\n{solo}\n[templates]\nkind = \"embedded\"\n"
        ))
        .unwrap();
        config.validate()
    }

    #[test]
    fn solo_blocks_pay_an_address_a_descriptor_or_a_script_of_the_network() {
        let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        for payout in [
            "payout_address = \"tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx\"".to_owned(),
            format!("payout_address = \"wpkh({key})\""),
            "payout_script = \"0014751e76e8199196d454941c45d1b3a323f1433bd6\"".to_owned(),
        ] {
            let solo = format!("network = \"signet\"\n{payout}");
            assert_eq!(validated(&solo), Ok(()), "{solo}");
        }
        for (solo, words) in [
            ("network = \"signet\"", "solo.payout_address is missing"),
            (
                "network = \"regtest\"\npayout_address = \"tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx\"",
                "solo.payout_address: ",
            ),
            (
                "network = \"regtest\"\npayout_script = \"6a00\"",
                "OP_RETURN",
            ),
            (
                "network = \"regtest\"\npayout_script = \"00146a\"",
                "cut off",
            ),
            (
                "network = \"regtest\"\npayout_script = \"51\"",
                "none of the standard",
            ),
        ] {
            let Err(ConfigRefused::Payout(refused)) = validated(solo) else {
                panic!("{solo}");
            };
            assert!(refused.contains(words), "{refused}");
        }
    }
}
