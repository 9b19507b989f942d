use bitcoin::consensus::Encodable;
use bitcoin::key::CompressedPublicKey;
use bitcoin::secp256k1::SecretKey;
use bitcoin::{KnownHrp, NetworkKind, PrivateKey};
use proptest::prelude::*;

use super::*;

fn keys(n: u8) -> Keypair {
    Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[n; 32]).unwrap())
}

fn worker(n: u8) -> String {
    keys(n).x_only_public_key().0.to_string()
}

/// An address of one key: P2WPKH or P2TR.
fn address(n: u8, is_taproot: bool) -> Address {
    let keys = keys(n);
    match is_taproot {
        true => Address::p2tr(
            SECP256K1,
            keys.x_only_public_key().0,
            None,
            KnownHrp::Regtest,
        ),
        false => Address::p2wpkh(&CompressedPublicKey(keys.public_key()), KnownHrp::Regtest),
    }
}

fn statement(account: &str) -> Statement {
    let pay_to = PayTo::parse(
        PayToKind::LightningAddress,
        "you@wallet.com",
        Network::Regtest,
    );
    Statement {
        pool: [7; 32],
        network: Network::Regtest,
        account: account.to_owned(),
        pay_to: pay_to.unwrap(),
        fallback: None,
        threshold_msat: None,
        schedule: Schedule::AsEarned,
        made_unix: 1_790_000_000,
    }
}

fn sign_by_address(statement: &Statement, n: u8) -> Vec<u8> {
    let address: Address<_> = statement.account.parse().unwrap();
    let key = PrivateKey::new(keys(n).secret_key(), NetworkKind::Test);
    let signed = bip322::sign_simple(&address.assume_checked(), statement.message(), &[key], None);
    let mut proof = Vec::new();
    signed.unwrap().consensus_encode(&mut proof).unwrap();
    proof
}

/// The same statement with one thing changed, each in turn: for another pool, another network, ..
fn changed(of: &Statement) -> Vec<Statement> {
    let changes: [fn(&mut Statement); 9] = [
        |s| s.pool = [8; 32],
        |s| s.network = Network::Signet,
        |s| s.account = worker(99),
        |s| s.pay_to = PayTo::kept(PayToKind::LightningAddress, "me@wallet.com".to_owned()),
        |s| s.pay_to = PayTo::kept(PayToKind::Onchain, "you@wallet.com".to_owned()),
        |s| s.fallback = Some(address(9, false).to_string()),
        |s| s.threshold_msat = Some(1_000),
        |s| s.schedule = Schedule::Daily { hour: 0 },
        |s| s.made_unix += 1,
    ];
    let change = |change: fn(&mut Statement)| {
        let mut changed = of.clone();
        change(&mut changed);
        changed
    };
    changes.map(change).to_vec()
}

#[test]
fn a_workers_signature_holds_for_its_statement_and_no_other() {
    let statement = statement(&worker(1));
    let proof = statement.sign(&keys(1));
    assert_eq!(statement.verify(&proof), Ok(()));
    for other in changed(&statement) {
        assert_eq!(
            other.verify(&proof),
            Err(ProofError::Signature),
            "{other:?}"
        );
    }
    let foreign = statement.sign(&keys(2));
    assert_eq!(statement.verify(&foreign), Err(ProofError::Signature));
    assert_eq!(statement.verify(&proof[..63]), Err(ProofError::Form));
}

#[test]
fn an_addresss_signature_holds_for_its_statement_and_no_other() {
    for is_taproot in [false, true] {
        let account = address(1, is_taproot).to_string();
        let statement = statement(&account);
        let proof = sign_by_address(&statement, 1);
        assert_eq!(statement.verify(&proof), Ok(()), "{account}");
        for mut other in changed(&statement) {
            if other.account == worker(99) {
                other.account = address(9, is_taproot).to_string();
            }
            assert!(other.verify(&proof).is_err(), "{other:?}");
        }
        // Another way to write the same signature is none.
        let longer = [&proof[..], &[0]].concat();
        assert_eq!(statement.verify(&longer), Err(ProofError::Form));
        for at in 0..proof.len() {
            let mut malleated = proof.clone();
            malleated[at] ^= 1;
            assert!(statement.verify(&malleated).is_err(), "{at}");
        }
    }
}

/// BIP 322's own test vectors: what wallets sign is what is verified here.
#[test]
fn signatures_are_those_of_bip_322() {
    let address: Address<_> = "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l"
        .parse()
        .unwrap();
    let address = address.assume_checked();
    let verified = bip322::verify_simple_encoded(
        &address.to_string(),
        "Hello World",
        "AkcwRAIgZRfIY3p7/DoVTty6YZbWS71bc5Vct9p9Fia83eRmw2QCICK/ENGfwLtptFluMGs2KsqoNSk89pO7F29zJLUx9a/sASECx/EgAxlkQpQ9hYjgGu6EBCPMVPwVIVJqO4XCsMvViHI=",
    );
    assert!(verified.is_ok(), "{verified:?}");
}

#[test]
fn accounts_that_can_prove_nothing_are_told_so() {
    let owner = |account: &str| Owner::of(account, Network::Regtest).unwrap_err();
    assert_eq!(owner("lno1qqqq"), ProofError::Offer);
    assert_eq!(owner("you@wallet.com"), ProofError::LightningAddress);
    assert_eq!(owner("alice"), ProofError::Name);
    assert_eq!(owner(&"f".repeat(64)), ProofError::Name);
    let mainnet = "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l";
    assert_eq!(owner(mainnet), ProofError::OtherNetwork);
    let script = bitcoin::ScriptBuf::new_op_return([0; 4]);
    let of_scripts = [
        Address::p2wsh(&script, KnownHrp::Regtest).to_string(),
        Address::p2sh(&script, NetworkKind::Test)
            .unwrap()
            .to_string(),
    ];
    for account in of_scripts {
        assert_eq!(owner(&account), ProofError::AddressKind, "{account}");
    }
}

#[test]
fn the_message_is_one_line_that_names_everything() {
    let mut statement = statement("alice");
    statement.threshold_msat = Some(50_000_000);
    assert_eq!(
        statement.message(),
        format!(
            "Dovetail payouts; pool {}; network regtest; account alice; pay lightning_address you@wallet.com; \
             fallback none; threshold 50000000 msat; schedule as-earned; time 1790000000",
            "07".repeat(32)
        )
    );
}

proptest! {
    #[test]
    fn junk_proves_nothing_and_does_not_panic(proof in proptest::collection::vec(any::<u8>(), 0..600), n in 0_u8..3) {
        let account = match n {
            0 => worker(1),
            1 => address(1, false).to_string(),
            _ => address(1, true).to_string(),
        };
        prop_assert!(statement(&account).verify(&proof).is_err());
    }

    #[test]
    fn a_witness_of_any_items_proves_nothing(items in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..4)) {
        let mut proof = Vec::new();
        Witness::from_slice(&items).consensus_encode(&mut proof).unwrap();
        for is_taproot in [false, true] {
            prop_assert!(statement(&address(1, is_taproot).to_string()).verify(&proof).is_err());
        }
    }
}
