use ldk_node::bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use ldk_node::lightning::offers::offer::{OfferBuilder, Quantity};

use super::*;

fn key() -> PublicKey {
    let secret = SecretKey::from_slice(&[1; 32]).unwrap();
    PublicKey::from_secret_key(&Secp256k1::new(), &secret)
}

#[test]
fn an_offer_is_paid_as_it_asks_or_not_at_all() {
    let any = OfferBuilder::new(key()).build().unwrap();
    assert_eq!(offer_fault(&any, 1_000, Network::Bitcoin), None);
    assert_eq!(
        offer_fault(&any, 1_000, Network::Regtest),
        Some(FailureClass::Invalid),
        "an offer that names no chain is for the main one"
    );
    assert_eq!(
        offer_fault(&any, 0, Network::Bitcoin),
        Some(FailureClass::Invalid)
    );

    let fixed = OfferBuilder::new(key())
        .amount_msats(1_000)
        .build()
        .unwrap();
    assert_eq!(offer_fault(&fixed, 1_000, Network::Bitcoin), None);
    for other in [999, 1_001] {
        let fault = offer_fault(&fixed, other, Network::Bitcoin);
        assert_eq!(fault, Some(FailureClass::Invalid));
    }

    let expired = OfferBuilder::new(key()).absolute_expiry(Duration::from_secs(1));
    let expired = expired.build().unwrap();
    assert_eq!(
        offer_fault(&expired, 1_000, Network::Bitcoin),
        Some(FailureClass::Expired)
    );

    let pieces = OfferBuilder::new(key()).supported_quantity(Quantity::Unbounded);
    let pieces = pieces.build().unwrap();
    assert_eq!(
        offer_fault(&pieces, 1_000, Network::Bitcoin),
        Some(FailureClass::Invalid)
    );
}

/// Two of BOLT 12's test vectors: ten US dollars, and an offer with a blinded path and no key of an issuer.
const IN_DOLLARS: &str = "lno1qcp4256ypqpzwyq2p32x2um5ypmx2cm5dae8x93pqthvwfzadd7jejes8q9lhc4rvjxd022zv5l44g6qah82ru5rdpnpj";
const PATH_ALONE: &str = "lno1pgx9getnwss8vetrw3hhyucs5ypjgef743p5fzqq9nqxh0ah7y87rzv3ud0eleps9kl2d5348hq2k8qzqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgqpqqqqqqqqqqqqqqqqqqqqqqqqqqqzqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqqzq3zyg3zyg3zygs";

#[test]
fn an_offer_in_a_currency_is_refused_and_one_with_a_path_alone_is_paid() {
    let in_dollars: Offer = IN_DOLLARS.parse().unwrap();
    assert!(matches!(in_dollars.amount(), Some(Amount::Currency { .. })));
    let refused = offer_fault(&in_dollars, 1_000, Network::Bitcoin);
    assert_eq!(refused, Some(FailureClass::Invalid));

    let path_alone: Offer = PATH_ALONE.parse().unwrap();
    assert!(path_alone.issuer_signing_pubkey().is_none());
    assert_eq!(offer_fault(&path_alone, 1_000, Network::Bitcoin), None);
}
