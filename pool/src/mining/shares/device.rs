//! The device that found a share: as the share says by extension 0x0002, or as its channel's identity does.

use dovetail_sv2::tlv::Tlv;
use dovetail_sv2::{Identity, worker_tracking};

use super::refusal::ShareRefusal;
use crate::mining::channels::Channel;
use crate::mining::connection::Connection;

/// What a share is refused with whose device has too long a name. The specification has no code for it.
const LONG_NAME: &str = "invalid-user-identity";

impl Connection {
    /// The name of the share's device, if it has one. Fields of an extension that was not negotiated are passed over.
    pub(super) fn device(
        &self,
        channel_id: u32,
        fields: &[Tlv],
    ) -> Result<Option<String>, ShareRefusal> {
        let channel = self.channels.get(&channel_id);
        let channels = || channel.and_then(Channel::device).map(str::to_owned);
        if !self.names_devices {
            return Ok(channels());
        }
        let named = worker_tracking::find_user_identity(fields)
            .map_err(|_| ShareRefusal::Standard(LONG_NAME))?;
        let account = channel.map(Channel::account);
        let shown = named.and_then(|named| shown(&named, account));
        Ok(shown.or_else(channels))
    }
}

/// What of a name is shown. Proxies often send what their device logs in with, which begins with the account.
fn shown(named: &str, account: Option<&str>) -> Option<String> {
    let identity = Identity::parse(named).ok();
    let identity = identity.filter(|identity| Some(identity.account()) == account);
    match identity {
        Some(Identity {
            device: Some(device),
            ..
        }) => Some(device),
        _ => Identity::device_name(named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_begins_with_its_account_is_the_device_behind_it() {
        for (named, device) in [
            ("rig1", Some("rig1")),
            ("alice.rig1", Some("rig1")),
            ("alice/rig 1", Some("rig 1")),
            ("alice", Some("alice")),
            ("bob.rig1", Some("bob.rig1")),
            ("sri/solo/x", Some("sri/solo/x")),
            ("a\u{1b}[31mb", Some("a[31mb")),
            ("\u{7}", None),
            ("", None),
        ] {
            assert_eq!(shown(named, Some("alice")).as_deref(), device, "{named:?}");
        }
    }
}
