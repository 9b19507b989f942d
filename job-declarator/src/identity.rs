//! From an Sv2 `user_identity` to the account that is credited.

/// The longest account name.
const ACCOUNT_LEN_MAX: usize = 128;

/// The hex digits of a worker's key.
const KEY_DIGITS: usize = 64;

/// The account of `user_identity`: what stands before the first `.`, as pools commonly read
/// `account.rig`. A worker's key is one account, however its digits are written. `None` where the name is empty,
/// too long, or not printable ASCII without spaces.
pub fn account_of(user_identity: &str) -> Option<String> {
    let account = user_identity.split('.').next().unwrap_or_default();
    let fits = !account.is_empty()
        && account.len() <= ACCOUNT_LEN_MAX
        && account.bytes().all(|byte| byte.is_ascii_graphic());
    let is_key = account.len() == KEY_DIGITS && account.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| match is_key {
        true => account.to_ascii_lowercase(),
        false => account.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::account_of;

    #[test]
    fn the_rig_is_not_part_of_the_account() {
        assert_eq!(account_of("alice.rig1").as_deref(), Some("alice"));
        assert_eq!(account_of("alice").as_deref(), Some("alice"));
    }

    #[test]
    fn a_worker_key_is_the_same_account_in_upper_case() {
        let key = "9BEF".repeat(16);
        let lower = key.to_ascii_lowercase();
        assert_eq!(account_of(&key), Some(lower.clone()));
        assert_eq!(account_of(&format!("{lower}.rig")), Some(lower));
        assert_eq!(account_of("Alice").as_deref(), Some("Alice"));
    }

    #[test]
    fn unprintable_empty_and_long_identities_are_refused() {
        for bad in ["", ".rig", "a b", "\u{7f}", "é", &"a".repeat(129)] {
            assert_eq!(account_of(bad), None, "{bad:?}");
        }
    }
}
