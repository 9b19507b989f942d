use bitcoin::hashes::Hash;
use bitcoin::{Network, Txid};
use proptest::prelude::*;

use super::*;

const TPRV: &str = "tprv8ZgxMBicQKsPeDgjzdC36fs6bMjGApWDNLR9erAXMs5skhMv36j9MV5ecvfavji5khqjWaWSFhN3YcCUUdiKH6isR4Pwy3U5y5egddBr16m";

fn keys(form: &str) -> WalletKeys {
    let descriptor = form.replace('K', &format!("{TPRV}/0/*"));
    WalletKeys::parse(&descriptor, Network::Regtest, 20).unwrap()
}

fn coin(keys: &WalletKeys, n: u8, sat: u64) -> Coin {
    Coin {
        outpoint: OutPoint::new(Txid::from_byte_array([n; 32]), u32::from(n)),
        output: TxOut {
            value: Amount::from_sat(sat),
            script_pubkey: keys.change_script(u64::from(n)),
        },
    }
}

fn payment(n: u8, sat: u64) -> Payment {
    Payment {
        script: ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([n; 20])),
        amount: Amount::from_sat(sat),
    }
}

fn request<'a>(payments: &'a [Payment], spare: &'a [Coin], change: &'a Script) -> Request<'a> {
    Request {
        payments,
        required: &[],
        spare,
        change,
        // 2 sat/vB.
        fee_rate: FeeRate::from_sat_per_kwu(500),
        fee_max: Amount::from_sat(100_000),
        replaces: None,
    }
}

fn spends(composed: &Composed, coins: &[Coin]) -> Amount {
    let has = |input: &TxIn| {
        let of_it = |coin: &&Coin| coin.outpoint == input.previous_output;
        coins.iter().find(of_it).unwrap().output.value
    };
    composed.transaction.input.iter().map(has).sum()
}

#[test]
fn payments_come_first_the_change_last_and_the_fee_is_the_difference() {
    for form in ["wpkh(K)", "tr(K)", "sh(wpkh(K))"] {
        let keys = keys(form);
        let coins = [coin(&keys, 1, 60_000), coin(&keys, 2, 90_000)];
        let change = keys.change_script(9);
        let payments = [payment(1, 20_000), payment(2, 30_000)];
        let composed = compose(&keys, &request(&payments, &coins, &change)).unwrap();
        let outputs = &composed.transaction.output;
        assert_eq!(outputs.len(), 3);
        assert_eq!(
            (outputs[0].value.to_sat(), outputs[1].value.to_sat()),
            (20_000, 30_000)
        );
        assert_eq!(outputs[2].script_pubkey, change);
        let paid: Amount = outputs.iter().map(|output| output.value).sum();
        assert_eq!(spends(&composed, &coins) - paid, composed.fee);
        // The largest coin is enough.
        assert_eq!(composed.transaction.input.len(), 1);
        let vsize = u64::try_from(composed.transaction.vsize()).unwrap();
        let rate = composed.fee.to_sat() as f64 / vsize as f64;
        assert!((2.0..2.1).contains(&rate), "{form}: {rate} sat/vB");
        assert!(composed.transaction.is_explicitly_rbf());
    }
}

#[test]
fn what_is_too_little_for_change_is_spent_on_the_fee() {
    let keys = keys("wpkh(K)");
    let coins = [coin(&keys, 1, 50_500)];
    let change = keys.change_script(9);
    let payments = [payment(1, 50_000)];
    let composed = compose(&keys, &request(&payments, &coins, &change)).unwrap();
    assert_eq!(composed.transaction.output.len(), 1);
    assert_eq!(composed.fee.to_sat(), 500);
    // Unless that costs more than may be, and there is another coin.
    let coins = [coin(&keys, 1, 50_500), coin(&keys, 2, 50_499)];
    let frugal = Request {
        fee_max: Amount::from_sat(450),
        ..request(&payments, &coins, &change)
    };
    let composed = compose(&keys, &frugal).unwrap();
    assert_eq!(composed.transaction.output.len(), 2);
    assert!(composed.fee.to_sat() <= 450, "{}", composed.fee);
}

#[test]
fn what_cannot_be_paid_is_told_why() {
    let keys = keys("wpkh(K)");
    let coins = [coin(&keys, 1, 10_000), coin(&keys, 2, 20_000)];
    let change = keys.change_script(9);
    let payments = [payment(1, 30_000)];
    let short = compose(&keys, &request(&payments, &coins, &change));
    assert!(
        matches!(short, Err(ComposeError::NotEnough { has, needs }) if has.to_sat() == 30_000 && needs > has),
        "{short:?}"
    );
    let payments = [payment(1, 20_000)];
    let dear = Request {
        fee_rate: FeeRate::from_sat_per_vb_u32(40),
        fee_max: Amount::from_sat(5_000),
        ..request(&payments, &coins, &change)
    };
    assert!(matches!(
        compose(&keys, &dear),
        Err(ComposeError::TooCostly { .. })
    ));
    let huge = [payment(1, u64::MAX), payment(2, 1)];
    assert_eq!(
        compose(&keys, &request(&huge, &coins, &change)),
        Err(ComposeError::Amount)
    );
    let mut foreign = coin(&keys, 3, 90_000);
    foreign.output.script_pubkey = payment(7, 0).script;
    assert_eq!(
        compose(&keys, &request(&payments, &[foreign], &change)),
        Err(ComposeError::NotSigned)
    );
}

proptest! {
    // Each case signs up to fifteen inputs.
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the amounts and rates: a replacement spends all that it replaces, pays the same, and pays nodes for both; no
    /// satoshi is made or lost.
    #[test]
    fn a_replacement_spends_all_and_pays_the_same(
        coins in prop::collection::vec(1_000_u64..200_000, 1..8),
        paid in prop::collection::vec(600_u64..60_000, 1..6),
        first in 25_u64..5_000,
        second in 25_u64..20_000,
    ) {
        let keys = keys("wpkh(K)");
        let coins: Vec<Coin> = (1..).zip(&coins).map(|(n, &sat)| coin(&keys, n, sat)).collect();
        let payments: Vec<Payment> = (1..).zip(&paid).map(|(n, &sat)| payment(n, sat)).collect();
        let change = keys.change_script(9);
        let asked = Request {
            fee_rate: FeeRate::from_sat_per_kwu(first),
            ..request(&payments, &coins, &change)
        };
        let Ok(before) = compose(&keys, &asked) else { return Ok(()) };
        let spent: Vec<OutPoint> = before.transaction.input.iter().map(|input| input.previous_output).collect();
        let required: Vec<Coin> = coins.iter().filter(|coin| spent.contains(&coin.outpoint)).cloned().collect();
        let incremental = FeeRate::from_sat_per_kwu(25);
        let asked = Request {
            required: &required,
            fee_rate: FeeRate::from_sat_per_kwu(second),
            replaces: Some(Replaced { fee: before.fee, incremental }),
            ..request(&payments, &coins, &change)
        };
        let Ok(after) = compose(&keys, &asked) else { return Ok(()) };
        let inputs: Vec<OutPoint> = after.transaction.input.iter().map(|input| input.previous_output).collect();
        prop_assert!(spent.iter().all(|outpoint| inputs.contains(outpoint)));
        prop_assert_eq!(&after.transaction.output[..paid.len()], &before.transaction.output[..paid.len()]);
        let vsize = u64::try_from(after.transaction.vsize()).unwrap();
        prop_assert!(after.fee.to_sat() >= before.fee.to_sat() + vsize.div_ceil(10));
        prop_assert!(after.fee <= asked.fee_max);
        let out: Amount = after.transaction.output.iter().map(|output| output.value).sum();
        prop_assert_eq!(spends(&after, &coins), out + after.fee);
        for output in &after.transaction.output {
            prop_assert!(output.value >= dust_limit(&output.script_pubkey));
        }
    }
}
