//! `--check-config`: what a configuration names is opened and read, and nothing is connected to or made.

#![allow(clippy::unwrap_used)]

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dovetail_tests::scenario::{AUTHORITY_PUBLIC, AUTHORITY_SECRET};
use dovetail_tests::{clerk_model, program};

/// A configuration with its keys and a model, in a folder.
struct Setup {
    dir: tempfile::TempDir,
    program: &'static str,
    arguments: &'static [&'static str],
    config: PathBuf,
}

impl Setup {
    fn new(
        program: &'static str,
        arguments: &'static [&'static str],
        config: impl FnOnce(&Path) -> String,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_owned();
        std::fs::copy(clerk_model(), at.join("clerk.safetensors")).unwrap();
        for (name, text) in [
            ("authority.secret", AUTHORITY_SECRET),
            ("receipt.key", &"01".repeat(32)),
            ("worker.key", &"01".repeat(32)),
            // Nobody listens there.
            ("ledger.url", "postgres://pool:hidden@127.0.0.1:1/pool"),
        ] {
            std::fs::write(at.join(name), text).unwrap();
            set_permissions(at.join(name), Permissions::from_mode(0o600)).unwrap();
        }
        let place = at.join("config.toml");
        std::fs::write(&place, config(&at)).unwrap();
        set_permissions(&place, Permissions::from_mode(0o644)).unwrap();
        Self {
            dir,
            program,
            arguments,
            config: place,
        }
    }

    fn pool() -> Self {
        Self::new("dovetail-pool", &[], |at| {
            pool_config(at, "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx")
        })
    }

    /// Whether it is valid, and all that was said about it.
    fn check(&self) -> (bool, String) {
        let output = Command::new(program(self.program))
            .args(self.arguments)
            .arg("--config")
            .arg(&self.config)
            .arg("--check-config")
            .current_dir(self.dir.path())
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    /// After this change of a file it is refused with these words.
    fn refused(self, file: &str, change: impl FnOnce(&Path), words: &[&str]) {
        let place = self.dir.path().join(file);
        change(&place);
        let (is_valid, said) = self.check();
        assert!(!is_valid, "{file}: {said}");
        for word in words {
            assert!(said.contains(word), "{file}: no {word:?} in {said}");
        }
        assert!(
            !said.contains("hidden") && !said.contains(AUTHORITY_SECRET),
            "{said}"
        );
    }

    fn names(&self) -> usize {
        std::fs::read_dir(self.dir.path()).unwrap().count()
    }
}

/// A pool that speaks TLS.
fn pool_with_tls() -> Setup {
    let setup = Setup::pool();
    let at = setup.dir.path();
    for (made, name) in [
        ("pool.pem", "live.pem"),
        ("pool.key", "live.key"),
        ("renewed.key", "other.key"),
    ] {
        let made = dovetail_tests::root()
            .join("crates/api/test-certificates")
            .join(made);
        std::fs::copy(made, at.join(name)).unwrap();
        set_permissions(at.join(name), Permissions::from_mode(0o600)).unwrap();
    }
    let keys = format!(
        "[api]\ntls_certificate = \"{at}/live.pem\"\ntls_key = {{ file = \"{at}/live.key\" }}\n",
        at = at.display()
    );
    let text = std::fs::read_to_string(&setup.config).unwrap();
    std::fs::write(&setup.config, text.replace("[api]\n", &keys)).unwrap();
    setup
}

fn pool_config(at: &Path, payout_address: &str) -> String {
    let at = at.display();
    format!(
        "[mining]
listen = \"127.0.0.1:1\"
authority_public_key = \"{AUTHORITY_PUBLIC}\"
authority_secret_key = {{ file = \"{at}/authority.secret\" }}
network = \"signet\"
payout_address = \"{payout_address}\"
[api]
listen = \"127.0.0.1:1\"
[templates]
kind = \"bitcoin-core\"
socket = \"{at}/node.sock\"
[job_declarator]
token_key = {{ file = \"{at}/token.key\" }}
[ledger]
url = {{ file = \"{at}/ledger.url\" }}
dir = \"{at}/ledger\"
log_bytes_max = 16777216
[inference]
models = [\"{at}/clerk.safetensors\"]
price = {{ input_msat_per_million = 0, output_msat_per_million = 1000 }}
receipt_key = {{ file = \"{at}/receipt.key\" }}
vrf_key = {{ file = \"{at}/vrf.key\" }}
[credit]
hash_msat_per_mebihash = 10
"
    )
}

fn open_to_all(place: &Path) {
    set_permissions(place, Permissions::from_mode(0o644)).unwrap();
}

fn cut_off(place: &Path) {
    let length = std::fs::metadata(place).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(place).unwrap();
    file.set_len(length - 1).unwrap();
}

fn remove(place: &Path) {
    std::fs::remove_file(place).unwrap();
}

fn spoil(place: &Path) {
    std::fs::write(place, "this is none").unwrap();
}

#[test]
fn a_pools_files_are_read_and_none_is_made() {
    let setup = Setup::pool();
    let before = setup.names();
    let (is_valid, said) = setup.check();
    assert!(
        is_valid && said.contains("the configuration is valid"),
        "{said}"
    );
    assert_eq!(setup.names(), before);
}

#[test]
fn what_is_wrong_with_a_pools_files_is_told_by_the_name_of_its_key() {
    let refused = |file: &str, change: fn(&Path), words: &[&str]| {
        Setup::pool().refused(file, change, words);
    };
    refused(
        "authority.secret",
        open_to_all,
        &["mining.authority_secret_key", "chmod 600"],
    );
    refused(
        "receipt.key",
        open_to_all,
        &["inference.receipt_key", "chmod 600"],
    );
    refused("ledger.url", open_to_all, &["ledger.url", "chmod 600"]);
    refused(
        "authority.secret",
        remove,
        &["mining.authority_secret_key", "authority.secret"],
    );
    refused("authority.secret", spoil, &["mining: the authority keys"]);
    refused(
        "receipt.key",
        spoil,
        &["inference.receipt_key must be 64 hex digits"],
    );
    refused(
        "token.key",
        |place| {
            spoil(place);
            set_permissions(place, Permissions::from_mode(0o600)).unwrap();
        },
        &["job_declarator.token_key", "64 hex digits"],
    );
    refused("ledger.url", spoil, &["ledger.url"]);
    refused("ledger", spoil, &["ledger.dir"]);
    refused(
        "clerk.safetensors",
        cut_off,
        &["inference.models", "not as long as its header says"],
    );
    refused("clerk.safetensors", remove, &["inference.models"]);
    refused(
        "config.toml",
        |place| {
            let elsewhere = "bcrt1qa0sm0hxzj0x25rh8gw5xlzwlsfvvyz8u8nhukw";
            std::fs::write(place, pool_config(place.parent().unwrap(), elsewhere)).unwrap();
        },
        &[
            "mining.payout_address",
            "not an address of the network signet",
        ],
    );
}

#[test]
fn what_is_wrong_with_a_pools_certificate_is_told() {
    let setup = pool_with_tls();
    let (is_valid, said) = setup.check();
    assert!(is_valid, "{said}");
    let refused = |file: &str, change: &dyn Fn(&Path), words: &[&str]| {
        pool_with_tls().refused(file, change, words);
    };
    refused("live.key", &open_to_all, &["api.tls_key", "chmod 600"]);
    refused("live.key", &spoil, &["api.tls_key", "no private key"]);
    refused("live.key", &remove, &["api.tls_key", "live.key"]);
    refused(
        "live.pem",
        &spoil,
        &["api.tls_certificate", "no certificate"],
    );
    refused("live.pem", &remove, &["api.tls_certificate", "live.pem"]);
    let swap = |place: &Path| {
        std::fs::copy(place.with_file_name("other.key"), place).unwrap();
    };
    refused("live.key", &swap, &["not the one of api.tls_key"]);
    let without_key = |place: &Path| {
        let text = std::fs::read_to_string(place).unwrap();
        let kept = text.lines().filter(|line| !line.starts_with("tls_key"));
        std::fs::write(place, kept.collect::<Vec<_>>().join("\n")).unwrap();
    };
    refused(
        "config.toml",
        &without_key,
        &["api.tls_key", "belong together"],
    );
}

#[test]
fn a_password_in_a_configuration_that_others_may_read_is_named_loudly_and_not_told() {
    let setup = Setup::pool();
    let text = std::fs::read_to_string(&setup.config).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("url = "))
        .unwrap();
    let text = text.replace(line, "url = \"postgres://pool:hidden@127.0.0.1:1/pool\"");
    std::fs::write(&setup.config, text).unwrap();
    let (is_valid, said) = setup.check();
    assert!(is_valid, "{said}");
    assert!(said.contains("THE SECRET ledger.url STANDS IN"), "{said}");
    assert!(
        said.contains("chmod 600") && !said.contains("hidden"),
        "{said}"
    );
    set_permissions(&setup.config, Permissions::from_mode(0o600)).unwrap();
    let (is_valid, said) = setup.check();
    assert!(is_valid && !said.contains("THE SECRET"), "{said}");
}

#[test]
fn a_declarators_and_a_workers_files_are_read_too() {
    let declarator = || {
        Setup::new("dovetail-jd", &[], |at| {
            let at = at.display();
            format!(
                "[declaration]
listen = \"127.0.0.1:1\"
authority_public_key = \"{AUTHORITY_PUBLIC}\"
authority_secret_key = {{ file = \"{at}/authority.secret\" }}
network = \"signet\"
payout_address = \"tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx\"
token_key = {{ file = \"{at}/token.key\" }}
[ledger]
url = {{ file = \"{at}/ledger.url\" }}
[templates]
kind = \"bitcoin-core\"
socket = \"{at}/node.sock\"
"
            )
        })
    };
    let setup = declarator();
    let before = setup.names();
    let (is_valid, said) = setup.check();
    assert!(is_valid, "{said}");
    assert_eq!(setup.names(), before);
    let words = ["declaration.authority_secret_key", "chmod 600"];
    declarator().refused("authority.secret", open_to_all, &words);

    let worker = || {
        Setup::new("dovetail-worker", &["run"], |at| {
            let at = at.display();
            format!(
                "[worker]
key_file = \"{at}/worker.key\"
models = [\"{at}/clerk.safetensors\"]
[pool]
address = \"127.0.0.1:1\"
authority_public_key = \"{AUTHORITY_PUBLIC}\"
[downstream]
listen = \"127.0.0.1:1\"
key_file = \"{at}/downstream.key\"
"
            )
        })
    };
    let setup = worker();
    let before = setup.names();
    let (is_valid, said) = setup.check();
    assert!(is_valid, "{said}");
    assert_eq!(setup.names(), before);
    worker().refused("worker.key", open_to_all, &["worker.key", "chmod 600"]);
    worker().refused("worker.key", spoil, &["worker.key holds no key"]);
    worker().refused(
        "clerk.safetensors",
        cut_off,
        &["worker.models", "not as long"],
    );
}
