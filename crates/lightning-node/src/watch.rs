//! LDK's store, watched while an offer is dispatched.
//!
//! LDK draws the id of an offer's payment inside its call, so a crash in that call leaves an attempt whose id is noted
//! nowhere. If LDK has written neither its manager nor a monitor since the attempt was noted, it has forgotten the payment
//! as well, and nothing left. So the first such write while a dispatch is under way puts a mark beside the attempt's record,
//! and goes on only once the mark is on disk. An attempt with a note, no id and no mark may be begun again.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use ldk_node::io::sqlite_store::SqliteStore;
use ldk_node::lightning;
use ldk_node::lightning::util::persist::{KVStore, KVStoreSync};

type Later<T> = Pin<Box<dyn Future<Output = Result<T, lightning::io::Error>> + Send>>;

/// The mark of the dispatch that is under way, if one is.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    mark: Mutex<Option<PathBuf>>,
}

impl Watch {
    /// From now on LDK's writes leave this mark.
    pub(crate) fn begin(&self, mark: PathBuf) {
        *self.lock() = Some(mark);
    }

    /// The dispatch's id is noted: no mark is needed.
    pub(crate) fn end(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<PathBuf>> {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What must be done before LDK writes.
    fn before_write(&self, primary: &str, key: &str) -> io::Result<()> {
        let is_of_payments = (primary.is_empty() && key == "manager")
            || matches!(primary, "monitors" | "monitor_updates");
        if !is_of_payments {
            return Ok(());
        }
        let mut mark = self.lock();
        if let Some(path) = mark.as_ref() {
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
        }
        Ok(())
    }
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

    fn before_write(&self, primary: &str, key: &str) -> Result<(), lightning::io::Error> {
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
        self.before_write(primary, key)?;
        KVStoreSync::write(&*self.store, primary, secondary, key, bytes)
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
        match self.before_write(primary, key) {
            Ok(()) => KVStore::write(&*self.store, primary, secondary, key, bytes),
            Err(error) => Box::pin(async { Err(error) }),
        }
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
