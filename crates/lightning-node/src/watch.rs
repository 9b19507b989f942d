//! LDK's store, watched for two things.
//!
//! LDK draws the id of an offer's payment inside its call, so a crash in that call leaves an attempt whose id is noted
//! nowhere. If LDK has written neither its manager nor a monitor since the attempt was noted, it has forgotten the payment
//! as well, and nothing left. So the first such write while a dispatch is under way puts a mark beside the attempt's record,
//! and goes on only once the mark is on disk. An attempt with a note, no id and no mark may be begun again.
//!
//! And a node that dies with a payment in a channel's monitor and not yet in LDK's manager closes the channel when it starts.
//! So a payment is answered once the manager was written again.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ldk_node::io::sqlite_store::SqliteStore;
use ldk_node::lightning;
use ldk_node::lightning::util::persist::{KVStore, KVStoreSync};

type Later<T> = Pin<Box<dyn Future<Output = Result<T, lightning::io::Error>> + Send>>;

/// What is known of LDK's writes.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The mark of the dispatch that is under way, if one is.
    mark: Mutex<Option<PathBuf>>,
    manager: Mutex<ManagerWrites>,
    manager_written: Condvar,
}

/// LDK writes its manager over and over, one write after the other.
#[derive(Debug, Default)]
struct ManagerWrites {
    begun: u64,
    /// The last one that is on disk.
    done: u64,
}

impl Watch {
    /// From now on LDK's writes leave this mark.
    pub(crate) fn begin(&self, mark: PathBuf) {
        *lock(&self.mark) = Some(mark);
    }

    /// The dispatch's id is noted: no mark is needed.
    pub(crate) fn end(&self) {
        *lock(&self.mark) = None;
    }

    /// How many writes of LDK's manager have begun.
    pub(crate) fn manager_writes(&self) -> u64 {
        lock(&self.manager).begun
    }

    /// Waits until a write of the manager is done that begins after so many, at most so long.
    pub(crate) fn wait_for_manager(&self, after: u64, time_max: Duration) {
        let writes = lock(&self.manager);
        let waited = self
            .manager_written
            .wait_timeout_while(writes, time_max, |writes| writes.done <= after);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// What must be done before LDK writes. Returns the write's number if it is one of the manager.
    fn before_write(&self, primary: &str, key: &str) -> io::Result<Option<u64>> {
        let is_manager = primary.is_empty() && key == "manager";
        if !is_manager && !matches!(primary, "monitors" | "monitor_updates") {
            return Ok(None);
        }
        self.leave_mark()?;
        if !is_manager {
            return Ok(None);
        }
        let mut writes = lock(&self.manager);
        writes.begun += 1;
        Ok(Some(writes.begun))
    }

    fn leave_mark(&self) -> io::Result<()> {
        let mut mark = lock(&self.mark);
        let Some(path) = mark.as_ref() else {
            return Ok(());
        };
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.sync_all()?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        *mark = None;
        Ok(())
    }

    fn after_write(&self, number: Option<u64>, is_written: bool) {
        if let (Some(number), true) = (number, is_written) {
            let mut writes = lock(&self.manager);
            writes.done = writes.done.max(number);
            self.manager_written.notify_all();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// LDK's store.
pub(crate) struct WatchedStore {
    store: Arc<SqliteStore>,
    watch: Arc<Watch>,
}

impl WatchedStore {
    pub(crate) fn new(store: Arc<SqliteStore>, watch: Arc<Watch>) -> Self {
        Self { store, watch }
    }

    fn before_write(&self, primary: &str, key: &str) -> Result<Option<u64>, lightning::io::Error> {
        self.watch.before_write(primary, key).map_err(|error| {
            tracing::error!(%error, "cannot mark a dispatch: LDK's write is refused");
            lightning::io::Error::new(lightning::io::ErrorKind::Other, error.to_string())
        })
    }
}

impl KVStoreSync for WatchedStore {
    fn read(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
    ) -> Result<Vec<u8>, lightning::io::Error> {
        KVStoreSync::read(&*self.store, primary, secondary, key)
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        bytes: Vec<u8>,
    ) -> Result<(), lightning::io::Error> {
        let number = self.before_write(primary, key)?;
        let written = KVStoreSync::write(&*self.store, primary, secondary, key, bytes);
        self.watch.after_write(number, written.is_ok());
        written
    }

    fn remove(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        lazy: bool,
    ) -> Result<(), lightning::io::Error> {
        KVStoreSync::remove(&*self.store, primary, secondary, key, lazy)
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, lightning::io::Error> {
        KVStoreSync::list(&*self.store, primary, secondary)
    }
}

impl KVStore for WatchedStore {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Later<Vec<u8>> {
        KVStore::read(&*self.store, primary, secondary, key)
    }

    // LDK counts on the order of its calls: the mark is made and the write begun before this returns.
    fn write(&self, primary: &str, secondary: &str, key: &str, bytes: Vec<u8>) -> Later<()> {
        let number = match self.before_write(primary, key) {
            Ok(number) => number,
            Err(error) => return Box::pin(async { Err(error) }),
        };
        let write = KVStore::write(&*self.store, primary, secondary, key, bytes);
        let watch = Arc::clone(&self.watch);
        Box::pin(async move {
            let written = write.await;
            watch.after_write(number, written.is_ok());
            written
        })
    }

    fn remove(&self, primary: &str, secondary: &str, key: &str, lazy: bool) -> Later<()> {
        KVStore::remove(&*self.store, primary, secondary, key, lazy)
    }

    fn list(&self, primary: &str, secondary: &str) -> Later<Vec<String>> {
        KVStore::list(&*self.store, primary, secondary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::TestFolder;

    fn store(folder: &std::path::Path, watch: &Arc<Watch>) -> WatchedStore {
        let store = SqliteStore::new(folder.to_owned(), None, None).unwrap();
        WatchedStore::new(Arc::new(store), Arc::clone(watch))
    }

    #[tokio::test]
    async fn a_write_of_ldk_during_a_dispatch_leaves_a_mark_and_no_other_does() {
        let folder = TestFolder::new().unwrap();
        let watch = Arc::new(Watch::default());
        let store = store(folder.path(), &watch);
        let mark = folder.path().join("mark");
        let write = |primary, key| KVStoreSync::write(&store, primary, "", key, vec![1]).unwrap();

        write("", "manager");
        assert!(!mark.exists(), "no dispatch is under way");
        watch.begin(mark.clone());
        write("payments", "aa");
        write("", "events");
        assert!(!mark.exists(), "neither holds what LDK would send");
        watch.end();
        write("monitors", "aa");
        assert!(!mark.exists(), "the dispatch is over");

        for (primary, key) in [
            ("monitors", "aa"),
            ("monitor_updates", "1"),
            ("", "manager"),
        ] {
            watch.begin(mark.clone());
            write(primary, key);
            assert!(mark.exists(), "{primary}/{key}");
            std::fs::remove_file(&mark).unwrap();
        }
        watch.begin(mark.clone());
        KVStore::write(&store, "", "", "manager", vec![2])
            .await
            .unwrap();
        assert!(mark.exists());
        assert_eq!(KVStore::read(&store, "", "", "manager").await.unwrap(), [2]);
    }

    #[tokio::test]
    async fn the_manager_is_waited_for_until_it_is_written_anew() {
        let folder = TestFolder::new().unwrap();
        let watch = Arc::new(Watch::default());
        let store = store(folder.path(), &watch);
        // It may lack what came after it began.
        let begun = KVStore::write(&store, "", "", "manager", vec![1]);
        let after = watch.manager_writes();
        let waiting = {
            let watch = Arc::clone(&watch);
            std::thread::spawn(move || watch.wait_for_manager(after, Duration::from_secs(60)))
        };
        begun.await.unwrap();
        KVStoreSync::write(&store, "monitors", "", "aa", vec![1]).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        let write = KVStore::write(&store, "", "", "manager", vec![2]);
        write.await.unwrap();
        waiting.join().unwrap();
        // It is not waited for for ever: it may have been written in the meantime.
        watch.wait_for_manager(watch.manager_writes(), Duration::from_millis(1));
    }

    #[test]
    fn ldk_does_not_write_what_cannot_be_marked() {
        let folder = TestFolder::new().unwrap();
        let watch = Arc::new(Watch::default());
        let store = store(folder.path(), &watch);
        watch.begin(folder.path().join("absent").join("mark"));
        KVStoreSync::write(&store, "", "", "manager", vec![1]).unwrap_err();
        KVStoreSync::read(&store, "", "", "manager").unwrap_err();
    }
}
