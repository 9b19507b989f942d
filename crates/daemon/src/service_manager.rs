//! Words to the service manager that has started us: systemd's protocol, which others speak too (`sd_notify(3)`): datagrams
//! to the socket that `NOTIFY_SOCKET` names, and a watchdog that `WATCHDOG_USEC` asks for.

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A service manager that does not read makes nobody wait longer than this.
const SEND_TIME_MAX: Duration = Duration::from_secs(1);
/// The longest reason that is told.
const REASON_CHARS_MAX: usize = 1_000;

/// What it is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Word<'a> {
    Ready,
    NotReady(&'a str),
    Stopping,
    /// For the watchdog. It is said often: one that does not get through does not matter.
    Alive,
}

impl Word<'_> {
    fn text(self) -> String {
        match self {
            Self::Ready => "READY=1\nSTATUS=ready\n".to_owned(),
            // Each line is a word of its own.
            Self::NotReady(reason) => {
                let shown = reason.chars().take(REASON_CHARS_MAX);
                let shown = shown.map(|c| if c.is_control() { ' ' } else { c });
                format!("STATUS=not ready: {}\n", shown.collect::<String>())
            }
            Self::Stopping => "STOPPING=1\nSTATUS=stopping\n".to_owned(),
            Self::Alive => "WATCHDOG=1\n".to_owned(),
        }
    }
}

/// Tells it, if there is one.
pub(crate) fn tell(word: Word<'_>) {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty()) else {
        return;
    };
    if let Err(error) = send(&place, word) {
        tracing::debug!(%error, ?word, "cannot tell the service manager");
    }
}

fn send(place: &OsStr, word: Word<'_>) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match word {
        Word::Alive => socket.set_nonblocking(true)?,
        _ => socket.set_write_timeout(Some(SEND_TIME_MAX))?,
    }
    let address = address(place)?;
    socket.send_to_addr(word.text().as_bytes(), &address)?;
    Ok(())
}

/// A path, or a name of Linux's abstract namespace behind an `@`.
fn address(place: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = place.as_encoded_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(place)
}

/// How often it has to hear that we live, if it does.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    let variable = |name: &str| std::env::var(name).ok();
    watchdog(
        variable("WATCHDOG_USEC").as_deref(),
        variable("WATCHDOG_PID").as_deref(),
        std::process::id(),
    )
}

/// `process` is whom the watchdog is for, if it does not say another.
fn watchdog(micros: Option<&str>, pid: Option<&str>, process: u32) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse::<u32>() == Ok(process));
    let micros = micros?.parse::<u64>().ok().filter(|micros| *micros > 1)?;
    // Twice as often as it must be, as sd_watchdog_enabled(3) recommends.
    is_ours.then(|| Duration::from_micros(micros) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4_096];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn words_go_to_a_path_and_to_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), Word::Ready).unwrap();
        assert_eq!(received(&socket), "READY=1\nSTATUS=ready\n");
        send(path.as_os_str(), Word::NotReady("no\nSTOPPING=1")).unwrap();
        assert_eq!(received(&socket), "STATUS=not ready: no STOPPING=1\n");
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            let name = format!("dovetail-test-{}", std::process::id());
            let address = SocketAddr::from_abstract_name(&name).unwrap();
            let socket = UnixDatagram::bind_addr(&address).unwrap();
            send(OsStr::new(&format!("@{name}")), Word::Stopping).unwrap();
            assert_eq!(received(&socket), "STOPPING=1\nSTATUS=stopping\n");
        }
        assert!(send(OsStr::new("/nonexistent/socket"), Word::Ready).is_err());
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify.sock");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // Its queue has some hundred places at most.
            let refused = (0..100_000).find_map(|_| send(path.as_os_str(), Word::Alive).err());
            let refused = refused.map(|error| error.kind());
            tell.send((refused, send(path.as_os_str(), Word::Ready).is_err()))
        });
        let told = told.recv_timeout(Duration::from_secs(20));
        let (refused, is_late) = told.expect("it is waited for");
        assert_eq!(refused, Some(io::ErrorKind::WouldBlock));
        assert!(is_late);
    }

    #[test]
    fn a_watchdog_is_for_the_process_that_it_names() {
        let second = Duration::from_secs(1);
        assert_eq!(watchdog(Some("2000000"), None, 7), Some(second));
        assert_eq!(watchdog(Some("2000000"), Some("7"), 7), Some(second));
        assert_eq!(watchdog(Some("2000000"), Some("8"), 7), None);
        for none in [None, Some(""), Some("0"), Some("1"), Some("often")] {
            assert_eq!(watchdog(none, None, 7), None);
        }
    }
}
