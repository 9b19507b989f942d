//! From an Sv2 `user_identity` to the account that is credited.

/// The longest account name.
const ACCOUNT_LEN_MAX: usize = 128;

/// The account of `user_identity`: what stands before the first `.`, as pools commonly read
/// `account.rig`. `None` where that is empty, too long, or not printable ASCII without spaces.
pub fn account_of(user_identity: &str) -> Option<String> {
    let account = user_identity.split('.').next().unwrap_or_default();
    let fits = !account.is_empty()
        && account.len() <= ACCOUNT_LEN_MAX
        && account.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| account.to_owned())
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
    fn unprintable_empty_and_long_identities_are_refused() {
        for bad in ["", ".rig", "a b", "\u{7f}", "é", &"a".repeat(129)] {
            assert_eq!(account_of(bad), None, "{bad:?}");
        }
    }
}
