use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// Far above what an honest look takes.
const SOON: Duration = Duration::from_secs(10);

/// A file of the certificates that tests have.
fn made(name: &str) -> Vec<u8> {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crates/api/test-certificates"
    );
    std::fs::read(Path::new(folder).join(name)).unwrap()
}

/// Where a port's files are, in the folder of this test.
fn files_in(dir: &Path) -> TlsFiles {
    TlsFiles {
        certificate: dir.join("live.pem"),
        key: Secret::File {
            file: dir.join("live.key"),
        },
    }
}

/// Puts these in the place of what is there, each by a renaming.
fn put(dir: &Path, name: &str, content: &[u8]) {
    let next = dir.join(format!("{name}.next"));
    std::fs::write(&next, content).unwrap();
    std::fs::set_permissions(&next, Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(next, dir.join(name)).unwrap();
}

/// A port with this pair.
pub(in crate::grpc_listener) fn with_pair(dir: &Path, name: &str) -> TlsFiles {
    put(dir, "live.pem", &made(&format!("{name}.pem")));
    put(dir, "live.key", &made(&format!("{name}.key")));
    files_in(dir)
}

fn digests(renewal: &Renewal) -> [sha256::Hash; 2] {
    renewal.pair.digests
}

#[tokio::test]
async fn a_renewed_pair_is_shown_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let files = with_pair(dir.path(), "pool");
    let renewal = Renewal::looking_every(files, Duration::from_millis(10)).unwrap();
    let shown = renewal.shown();
    let first = shown.now();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(async move { renewal.run(&stop).await });
    with_pair(dir.path(), "renewed");
    let renewed = async {
        while Arc::ptr_eq(&first, &shown.now()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, renewed).await.unwrap();
}

#[test]
fn what_certbot_does_is_a_change_and_looking_again_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    for name in ["pool", "renewed"] {
        for ending in ["pem", "key"] {
            let file = format!("{name}.{ending}");
            put(at, &file, &made(&file));
        }
    }
    // It has symbolic links whose targets it changes.
    let link = |ending: &str, to: &str| {
        let place = at.join(format!("live.{ending}"));
        let _ = std::fs::remove_file(&place);
        symlink(at.join(format!("{to}.{ending}")), place).unwrap();
    };
    link("pem", "pool");
    link("key", "pool");
    let mut renewal = Renewal::new(files_in(at)).unwrap();
    let first = digests(&renewal);
    renewal.take(renewal.files.read());
    assert_eq!(digests(&renewal), first);
    // Between the two, the pair does not fit.
    link("key", "renewed");
    renewal.take(renewal.files.read());
    assert_eq!(digests(&renewal), first);
    link("pem", "renewed");
    renewal.take(renewal.files.read());
    assert_ne!(digests(&renewal), first);
}

#[test]
fn a_pair_that_cannot_be_used_changes_nothing_until_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let mut renewal = Renewal::new(with_pair(at, "pool")).unwrap();
    let shown = renewal.shown();
    let first = shown.now();
    let breakages: [&dyn Fn(); 4] = [
        &|| put(at, "live.key", &made("renewed.key")),
        &|| put(at, "live.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n"),
        &|| put(at, "live.pem", b""),
        &|| std::fs::remove_file(at.join("live.pem")).unwrap(),
    ];
    for breakage in breakages {
        breakage();
        renewal.take(renewal.files.read());
        assert!(Arc::ptr_eq(&first, &shown.now()));
    }
    with_pair(at, "renewed");
    renewal.take(renewal.files.read());
    assert!(!Arc::ptr_eq(&first, &shown.now()));
}

#[test]
fn what_is_wrong_with_a_pair_is_told_and_nothing_of_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let refused = |words: &[&str]| {
        let refused = files_in(at).read().unwrap_err();
        for word in words {
            assert!(refused.contains(word), "no {word:?} in {refused}");
        }
        assert!(!refused.contains("hidden"), "{refused}");
    };
    with_pair(at, "pool");
    files_in(at).read().unwrap();
    put(at, "live.key", &made("renewed.key"));
    refused(&["api.tls_certificate", "not the one of api.tls_key"]);
    for spoilt in [
        &b"hidden"[..],
        b"-----BEGIN hidden\nhidden\n",
        &made("pool.pem"),
    ] {
        put(at, "live.key", spoilt);
        refused(&["api.tls_key", "no private key"]);
    }
    with_pair(at, "pool");
    std::fs::set_permissions(at.join("live.key"), Permissions::from_mode(0o644)).unwrap();
    refused(&["api.tls_key", "chmod 600"]);
    with_pair(at, "pool");
    put(at, "live.pem", &made("pool.key"));
    refused(&["live.pem", "no certificate"]);
    std::fs::remove_file(at.join("live.pem")).unwrap();
    refused(&["api.tls_certificate", "live.pem"]);
}

#[test]
fn the_end_of_a_certificate_is_read_and_told_of_in_time() {
    let own = |name: &str| CertificateDer::from_pem_slice(&made(name)).unwrap();
    let validity = Validity::of(&own("expired.pem")).unwrap();
    // 1 January to 1 April 2025.
    assert_eq!((validity.from, validity.to), (1_735_689_600, 1_743_465_600));
    let at = |seconds: u64| validity.left(seconds);
    assert_eq!(at(validity.from - 1), Left::NotBegun);
    assert_eq!(at(validity.from), Left::Enough);
    assert_eq!(at(validity.to - 16 * 86_400), Left::Enough);
    assert_eq!(at(validity.to - 14 * 86_400), Left::Little { days: 14 });
    assert_eq!(at(validity.to), Left::Little { days: 0 });
    assert_eq!(at(validity.to + 1), Left::Nothing);
    // An authority's own has one too.
    assert!(Validity::of(&own("self.pem")).is_some());
}

#[test]
fn one_reason_is_told_at_the_second_look_and_again_after_an_hour() {
    let mut refused = Refused::default();
    let mut looks = |reason: &str, count: usize| {
        let told = (0..count).filter(|_| refused.is_worth_telling(reason));
        told.count()
    };
    assert_eq!(looks("the key is another one", 1), 0);
    assert_eq!(looks("the key is another one", 1), 1);
    assert_eq!(looks("the key is another one", 359), 0);
    assert_eq!(looks("the key is another one", 1), 1);
    assert_eq!(looks("there is no file", 1), 0);
    assert_eq!(looks("there is no file", 100), 1);
}
