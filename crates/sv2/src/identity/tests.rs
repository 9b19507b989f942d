//! Names of miners and how they are taken apart.

use super::*;
use bitcoin::hashes::Hash;
use proptest::prelude::*;

const BECH32: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
const BASE58: &str = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa";
const OFFER: &str = "lno1pgqppmsrse80qf0aara4slvcjxrvu6j2rp5ftmjy4yntlsmsutpkvkt6878s";

fn parsed(text: &str) -> (String, Option<String>) {
    let identity = Identity::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    (identity.account().to_owned(), identity.device)
}

#[test]
fn each_shape_is_told_from_its_device() {
    let key = "ab".repeat(32);
    for (text, account, device) in [
        ("alice", "alice", None),
        ("alice.rig1", "alice", Some("rig1")),
        ("alice/rig1", "alice", Some("rig1")),
        ("alice.rig.1", "alice", Some("rig.1")),
        ("alice.", "alice", None),
        ("alice.h\u{e4}userl", "alice", Some("h\u{e4}userl")),
        ("pool:hash", "pool:hash", None),
        ("bob@walletofsatoshi.com", "bob@walletofsatoshi.com", None),
        ("Bob@WalletOfSatoshi.com", "bob@walletofsatoshi.com", None),
        ("lnwalker@getalby.example", "lnwalker@getalby.example", None),
        ("you@blink.sv/rig", "you@blink.sv", Some("rig")),
        ("you@blink.sv/rig.2/x", "you@blink.sv", Some("rig.2/x")),
        ("you@blink.sv.rig1", "you@blink.sv", Some("rig1")),
        ("you@blink.sv.1.x", "you@blink.sv", Some("1.x")),
        (
            "bob@walletofsatoshi.com.garage",
            "bob@walletofsatoshi.com",
            Some("garage"),
        ),
        (
            "bob@walletofsatoshi.com.garage.left",
            "bob@walletofsatoshi.com",
            Some("garage.left"),
        ),
        ("BOB@Coinos.IO.Rig", "bob@coinos.io", Some("Rig")),
        ("bob@wallet.com.au", "bob@wallet.com.au", None),
        ("bob@wallet.com.au.rig1", "bob@wallet.com.au", Some("rig1")),
        ("bob@com.example.org", "bob@com.example.org", None),
        ("bob@wallet.com.", "bob@wallet.com", None),
        ("bob@wallet.com..rig", "bob@wallet.com", Some(".rig")),
        (
            "first.last+tag@pay.example.com",
            "first.last+tag@pay.example.com",
            None,
        ),
        (
            "First.Last+Tag@Example.com/Rig",
            "first.last+tag@example.com",
            Some("Rig"),
        ),
        ("alice/rig@home", "alice", Some("rig@home")),
        ("alice..rig", "alice", Some(".rig")),
        ("miner.example.com", "miner", Some("example.com")),
        ("you@blink.sv.my_rig", "you@blink.sv", Some("my_rig")),
        ("you@pay.blink.sv", "you@pay.blink.sv", None),
        ("a.b@mail.example.com", "a.b@mail.example.com", None),
        ("you@host.xn--p1ai.7", "you@host.xn--p1ai", Some("7")),
        (BECH32, BECH32, None),
        (&format!("{BECH32}.s9"), BECH32, Some("s9")),
        (&format!("{BECH32}/s9"), BECH32, Some("s9")),
        (&BECH32.to_uppercase(), BECH32, None),
        (&format!("{BASE58}.s9"), BASE58, Some("s9")),
        (&format!("{OFFER}.s9"), OFFER, Some("s9")),
        (&OFFER.to_uppercase(), OFFER, None),
        (&format!("{key}.s9"), &key, Some("s9")),
        (&key.to_uppercase(), &key, None),
    ] {
        let expected = (account.to_owned(), device.map(str::to_owned));
        assert_eq!(parsed(text), expected, "{text}");
    }
}

#[test]
fn a_payee_of_any_length_and_case_keeps_its_device() {
    // As long as the message carries.
    for digits in [46, 128, 199, 249] {
        let offer = format!("lno1{}", "q".repeat(digits));
        assert_eq!(parsed(&offer), (offer.clone(), None));
        for written in [format!("{offer}.r"), format!("{offer}/r")] {
            assert_eq!(parsed(&written), (offer.clone(), Some("r".into())));
        }
        let upper = format!("{}.Rig", offer.to_uppercase());
        assert_eq!(parsed(&upper), (offer.clone(), Some("Rig".into())));
    }
    let longest = format!("lno1{}", "q".repeat(251));
    assert_eq!(parsed(&longest), (longest.clone(), None));
    // Taproot, of a test network, in capitals.
    let taproot = "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c";
    let written = format!("{}.S9", taproot.to_uppercase());
    assert_eq!(parsed(&written), (taproot.into(), Some("S9".into())));
}

#[test]
fn what_nobody_could_be_paid_by_is_refused_with_its_reason() {
    use IdentityRefusal as Refused;
    for (text, refusal) in [
        ("", Refused::Empty),
        (".rig", Refused::Empty),
        ("/rig", Refused::Empty),
        ("a b", Refused::Characters),
        ("\u{7f}", Refused::Characters),
        ("\u{e9}", Refused::Characters),
        (&"a".repeat(129), Refused::Long),
        (&BECH32.replace("w5", "w6"), Refused::MistypedAddress),
        (&BASE58.replace("zP", "zQ"), Refused::MistypedAddress),
        (
            &BECH32.to_uppercase().replace("W5", "W6"),
            Refused::MistypedAddress,
        ),
        // A test network's.
        (
            "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfm",
            Refused::MistypedAddress,
        ),
        (&"ab".repeat(32)[1..], Refused::WorkerKey),
        (&format!("02{}", "AB".repeat(32)), Refused::WorkerKey),
        // Bech32 is of one case.
        (&OFFER.replace("lno1pg", "lno1PG"), Refused::Offer),
        (&format!("lno1{}b", "q".repeat(60)), Refused::Offer),
        ("alice.rig@home", Refused::LightningAddress),
        ("\u{20bf}bob@wallet.com", Refused::LightningAddress),
        ("bob@-wallet.com", Refused::LightningAddress),
        ("bob@wallet..com", Refused::LightningAddress),
        ("+@", Refused::LightningAddress),
        ("bob@wallet", Refused::LightningAddress),
        ("bob@wallet.1", Refused::LightningAddress),
        ("@wallet.com", Refused::LightningAddress),
        ("bob@", Refused::LightningAddress),
        ("bob@a@b.com", Refused::LightningAddress),
        ("bob@wallet.com.1/2", Refused::LightningAddress),
        ("b ob@wallet.com", Refused::LightningAddress),
        ("lno1", Refused::Offer),
        ("lno1pgqp.rig", Refused::Offer),
        ("sri/solo/bc1q/rig", Refused::Solo),
    ] {
        assert_eq!(Identity::parse(text), Err(refusal), "{text}");
    }
}

#[test]
fn a_pool_that_pays_takes_nobody_by_a_plain_name() {
    let rules = |plain_names| IdentityRules {
        network: Network::Bitcoin,
        plain_names,
    };
    for text in ["alice", "alice.rig", "alice/rig", "bc1"] {
        assert_eq!(rules(false).admit(text), Err(IdentityRefusal::PlainName));
        assert_eq!(rules(true).admit(text), Identity::parse(text));
    }
    let key = "ab".repeat(32);
    for text in [BECH32, BASE58, OFFER, "bob@wallet.com", &key] {
        assert_eq!(rules(false).admit(text), Identity::parse(text), "{text}");
    }
    let elsewhere = IdentityRules {
        network: Network::Signet,
        plain_names: true,
    };
    assert_eq!(elsewhere.admit(BECH32), Err(IdentityRefusal::OtherNetwork));
}

#[test]
fn an_address_of_another_network_cannot_be_paid() {
    let payee = |text: &str| Identity::parse(text).unwrap().payee;
    let fits = payee(BECH32).fits(Network::Bitcoin);
    assert_eq!(fits, Ok(()));
    for network in [Network::Signet, Network::Regtest] {
        let refused = payee(BECH32).fits(network);
        assert_eq!(refused, Err(IdentityRefusal::OtherNetwork));
        assert_eq!(payee("alice").fits(network), Ok(()));
    }
}

fn host() -> impl Strategy<Value = String> {
    let host = "([a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?\\.){1,3}[a-z]{2,8}";
    host.prop_filter("a host goes on behind a generic domain", |host| {
        !host.split('.').any(is_generic)
    })
}

fn payee() -> impl Strategy<Value = String> {
    let key = any::<[u8; 32]>().prop_map(hex::encode);
    let script = any::<[u8; 20]>().prop_map(|hash| {
        let program = bitcoin::WPubkeyHash::from_byte_array(hash);
        let script = bitcoin::ScriptBuf::new_p2wpkh(&program);
        Address::from_script(&script, Network::Signet).unwrap()
    });
    let lightning =
        ("[a-z0-9_+-][a-z0-9._+-]{0,20}", host()).prop_map(|(name, host)| format!("{name}@{host}"));
    let offer = "lno1[qpzry9x8gf2tvdw0s3jn54khce6mua7l]{46,120}";
    let name = "[A-Za-z][A-Za-z0-9_:+-]{0,11}";
    prop_oneof![
        key,
        script.prop_map(|address| address.to_string()),
        lightning,
        offer.prop_map(|text| text),
        name.prop_map(|text| text),
    ]
}

proptest! {
    #[test]
    fn a_payee_comes_back_whole_with_and_without_a_device(payee in payee(), device in "[a-z0-9]{1,16}") {
        let alone = Identity::parse(&payee).unwrap();
        prop_assert_eq!(alone.account(), &payee);
        prop_assert_eq!(&alone.device, &None);
        let with = Identity::parse(&format!("{payee}/{device}")).unwrap();
        prop_assert_eq!(&with.payee, &alone.payee);
        prop_assert_eq!(with.device.as_deref(), Some(device.as_str()));
        let dotted = Identity::parse(&format!("{payee}.{device}1")).unwrap();
        prop_assert_eq!(&dotted.payee, &alone.payee);
    }

    #[test]
    fn an_account_is_the_account_of_its_own_name(text in "\\PC{0,80}") {
        if let Ok(identity) = Identity::parse(&text) {
            let account = identity.account();
            prop_assert!(!account.is_empty() && account.len() <= OFFER_BYTES_MAX);
            prop_assert!(account.bytes().all(|byte| byte.is_ascii_graphic()));
            let again = Identity::parse(account).unwrap();
            prop_assert_eq!(again, Identity { payee: identity.payee, device: None });
        }
    }

    #[test]
    fn names_of_the_form_account_dot_rig_keep_their_account(account in "[A-Za-z][A-Za-z0-9_-]{0,11}", rig in "[!-~]{0,20}") {
        let identity = Identity::parse(&format!("{account}.{rig}"));
        // A rig with an @ makes a Lightning address of it.
        if !rig.contains('@') {
            let identity = identity.unwrap();
            prop_assert_eq!(identity.account(), account);
        }
    }
}

#[test]
fn of_a_devices_name_what_can_be_shown_is_kept_and_no_more_than_64_characters() {
    let device = |name: &str| parsed(&format!("alice.{name}")).1;
    let shown = Some("a[31mb".to_owned());
    assert_eq!(device("a\u{1b}[31mb\n"), shown);
    assert_eq!(device("\u{7}"), None);
    let longest = "\u{e4}".repeat(64);
    assert_eq!(device(&longest).as_ref(), Some(&longest));
    assert_eq!(device(&format!("{longest}x")), Some(longest));
}
