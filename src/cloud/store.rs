//! What survives a restart of the cloud, in one `SQLite` file: apps and devices, the apps' sessions, and one document
//! per user for the orchestration.
//!
//! One thread owns the database and takes jobs from a bounded queue; every call has a deadline. The file is locked for
//! as long as it is open, so that two clouds cannot share it by mistake. Its schema has a version (`user_version`): an
//! older one is migrated in one transaction, a newer one is refused.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// The most jobs that wait.
const QUEUE: usize = 64;
/// Time limit of one call, its time in the queue included.
const CALL: Duration = Duration::from_secs(5);
/// How long opening waits for another process to release the file: a cloud that is just ending.
const BUSY: Duration = Duration::from_secs(3);

/// Migration n brings the schema from version n to n + 1. Existing ones never change; new ones are appended.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE app (
        package TEXT PRIMARY KEY,
        key_sha256 TEXT NOT NULL,
        permissions TEXT NOT NULL,
        webhook_url TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE device (
        name TEXT PRIMARY KEY,
        user TEXT NOT NULL,
        token_sha256 TEXT NOT NULL UNIQUE
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE app_session (
        id TEXT PRIMARY KEY,
        user TEXT NOT NULL,
        package TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE orchestration (
        user TEXT PRIMARY KEY,
        document TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
"];

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or created.
    #[error("{path}: {source}")]
    File {
        /// The database file.
        path: PathBuf,
        source: io::Error,
    },
    /// Another process has the file open.
    #[error("{0} is in use; is another lenscast-cloud running?")]
    InUse(PathBuf),
    /// The file is no database, or a damaged one.
    #[error("{path} is damaged or not a lenscast-cloud database ({detail}); move it away to start with an empty one")]
    Damaged {
        path: PathBuf,
        /// The message of `SQLite`.
        detail: String,
    },
    /// A later version of this program wrote the file.
    #[error("{path} was written by a later version of lenscast-cloud (schema {found}, known: {known})")]
    Newer {
        path: PathBuf,
        /// The schema version of the file.
        found: u32,
        /// The newest schema version that this program knows.
        known: u32,
    },
    /// The row to be added exists already.
    #[error("it exists already")]
    Exists,
    /// Any other error of the database.
    #[error("the database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// No answer within 5 s. The change may or may not have been made.
    #[error("the database did not answer in time")]
    Late,
    #[error("the database is closed")]
    Closed,
}

/// An app, as a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRow {
    pub package: String,
    /// SHA-256 of its API key, hexadecimal.
    pub key_sha256: String,
    /// The permissions' names, separated by spaces.
    pub permissions: String,
    /// The URL that starts and stops it.
    pub webhook_url: Option<String>,
}

/// A device, as a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    pub name: String,
    /// The user who owns it.
    pub user: String,
    /// SHA-256 of its token, hexadecimal.
    pub token_sha256: String,
}

/// An app's session with a user, as a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppSessionRow {
    /// The session's id.
    pub id: String,
    pub user: String,
    /// The app's package name.
    pub package: String,
}

/// All stored accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub apps: Vec<AppRow>,
    pub devices: Vec<DeviceRow>,
    pub sessions: Vec<AppSessionRow>,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: mpsc::Sender<Option<Job>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Store {
    /// Opens the database at `path`, or creates it (mode 0600; its folder must exist). Blocks for up to several
    /// seconds.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = connect(path)?;
        let (jobs, mut queue) = mpsc::channel::<Option<Job>>(QUEUE);
        let work = move || {
            while let Some(Some(job)) = queue.blocking_recv() {
                job(&mut connection);
            }
        };
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(work)
            .map_err(|source| StoreError::File { path: path.into(), source })?;
        Ok(Self { jobs, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Finishes the jobs in the queue and closes the file; later jobs are refused. Returns when that is done, after 5 s
    /// at most.
    pub async fn close(&self) {
        let _ = timeout(CALL, self.jobs.send(None)).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = timeout(CALL, tokio::task::spawn_blocking(move || thread.join())).await;
        }
    }

    /// All accounts.
    pub async fn accounts(&self) -> Result<Stored, StoreError> {
        self.call(|db| {
            let apps = rows(db, "SELECT package, key_sha256, permissions, webhook_url FROM app", |row| {
                Ok(AppRow {
                    package: row.get(0)?,
                    key_sha256: row.get(1)?,
                    permissions: row.get(2)?,
                    webhook_url: row.get(3)?,
                })
            })?;
            let devices = rows(db, "SELECT name, user, token_sha256 FROM device", |row| {
                Ok(DeviceRow { name: row.get(0)?, user: row.get(1)?, token_sha256: row.get(2)? })
            })?;
            let sessions = rows(db, "SELECT id, user, package FROM app_session", |row| {
                Ok(AppSessionRow { id: row.get(0)?, user: row.get(1)?, package: row.get(2)? })
            })?;
            Ok(Stored { apps, devices, sessions })
        })
        .await
    }

    /// Adds an app; [`StoreError::Exists`] if its package is already there.
    pub async fn add_app(&self, app: AppRow) -> Result<(), StoreError> {
        self.change(move |db| {
            db.execute(
                "INSERT INTO app (package, key_sha256, permissions, webhook_url) VALUES (?, ?, ?, ?)",
                params![app.package, app.key_sha256, app.permissions, app.webhook_url],
            )
        })
        .await
        .map(drop)
    }

    /// Removes an app and its sessions. False if it was not there.
    pub async fn remove_app(&self, package: &str) -> Result<bool, StoreError> {
        let package = package.to_owned();
        self.change(move |db| {
            let transaction = db.transaction()?;
            transaction.execute("DELETE FROM app_session WHERE package = ?", [&package])?;
            let removed = transaction.execute("DELETE FROM app WHERE package = ?", [&package])?;
            transaction.commit()?;
            Ok(removed)
        })
        .await
    }

    /// Adds a device; [`StoreError::Exists`] if its name is already there.
    pub async fn add_device(&self, device: DeviceRow) -> Result<(), StoreError> {
        self.change(move |db| {
            db.execute(
                "INSERT INTO device (name, user, token_sha256) VALUES (?, ?, ?)",
                [&device.name, &device.user, &device.token_sha256],
            )
        })
        .await
        .map(drop)
    }

    /// Removes a device. False if it was not there.
    pub async fn remove_device(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.change(move |db| db.execute("DELETE FROM device WHERE name = ?", [&name])).await
    }

    /// Stores an app's session. It may be there already.
    pub async fn add_app_session(&self, session: AppSessionRow) -> Result<(), StoreError> {
        self.change(move |db| {
            db.execute(
                "INSERT OR REPLACE INTO app_session (id, user, package) VALUES (?, ?, ?)",
                [&session.id, &session.user, &session.package],
            )
        })
        .await
        .map(drop)
    }

    /// Removes an app's session. False if it was not there.
    pub async fn remove_app_session(&self, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.change(move |db| db.execute("DELETE FROM app_session WHERE id = ?", [&id])).await
    }

    /// Replaces the orchestration's document about a user, or removes it.
    pub async fn save_session(&self, user: &str, document: Option<&str>) -> Result<(), StoreError> {
        let (user, document) = (user.to_owned(), document.map(str::to_owned));
        self.change(move |db| match document {
            Some(document) => {
                let statement = "INSERT OR REPLACE INTO orchestration (user, document) VALUES (?, ?)";
                db.execute(statement, [&user, &document])
            }
            None => db.execute("DELETE FROM orchestration WHERE user = ?", [&user]),
        })
        .await
        .map(drop)
    }

    /// All documents of the orchestration, as pairs of user and JSON.
    pub async fn sessions(&self) -> Result<Vec<(String, String)>, StoreError> {
        let read = |db: &mut Connection| {
            rows(db, "SELECT user, document FROM orchestration", |row| Ok((row.get(0)?, row.get(1)?)))
        };
        self.call(read).await
    }

    /// Whether a row was changed.
    async fn change(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<usize> + Send + 'static,
    ) -> Result<bool, StoreError> {
        Ok(self.call(work).await? > 0)
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |db| {
            let _ = answer.send(work(db)); // who asked may have given up
        });
        let asked = async {
            self.jobs.send(Some(job)).await.map_err(|_| StoreError::Closed)?;
            let result = answered.await.map_err(|_| StoreError::Closed)?;
            result.map_err(|error| match error.sqlite_error_code() {
                Some(ErrorCode::ConstraintViolation) => StoreError::Exists,
                _ => StoreError::Database(error),
            })
        };
        timeout(CALL, asked).await.unwrap_or(Err(StoreError::Late))
    }
}

fn rows<T>(
    db: &Connection,
    query: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    db.prepare(query)?.query_map([], read)?.collect()
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    // Created here, since SQLite would use the umask. The files that it puts beside this one get the same mode.
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    made.map_err(|source| StoreError::File { path: path.into(), source })?;
    let explain = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse(path.into()),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            StoreError::Damaged { path: path.into(), detail: error.to_string() }
        }
        _ => StoreError::Database(error),
    };
    let mut db = Connection::open(path).map_err(explain)?;
    prepare(&mut db).map_err(explain)?;
    let sound: Option<String> =
        db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).optional().map_err(explain)?;
    if let Some(detail) = sound.filter(|detail| detail != "ok") {
        return Err(StoreError::Damaged { path: path.into(), detail });
    }
    migrate(&mut db, path, explain)?;
    Ok(db)
}

fn prepare(db: &mut Connection) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // With a WAL, a power cut can lose the last change but never the database.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    // The first write takes the lock.
    db.transaction_with_behavior(TransactionBehavior::Immediate)?.commit()
}

fn migrate(
    db: &mut Connection,
    path: &Path,
    explain: impl Fn(rusqlite::Error) -> StoreError,
) -> Result<(), StoreError> {
    let found: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(&explain)?;
    let known = MIGRATIONS.len() as u32;
    let Some(missing) = MIGRATIONS.get(found as usize..) else {
        return Err(StoreError::Newer { path: path.into(), found, known });
    };
    if missing.is_empty() {
        return Ok(());
    }
    let transaction = db.transaction().map_err(&explain)?;
    for migration in missing {
        transaction.execute_batch(migration).map_err(&explain)?;
    }
    transaction.pragma_update(None, "user_version", known).map_err(&explain)?;
    transaction.commit().map_err(explain)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn app(package: &str) -> AppRow {
        AppRow {
            package: package.into(),
            key_sha256: "00".into(),
            permissions: "CAMERA".into(),
            webhook_url: Some("http://a/webhook".into()),
        }
    }

    #[tokio::test]
    async fn what_was_stored_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloud.sqlite");
        let store = Store::open(&path).unwrap();
        store.add_app(app("org.one")).await.unwrap();
        store.add_app(app("org.two")).await.unwrap();
        let device = DeviceRow { name: "live".into(), user: "u@e.com".into(), token_sha256: "11".into() };
        store.add_device(device.clone()).await.unwrap();
        let session =
            |package: &str| AppSessionRow { id: format!("u-{package}"), user: "u".into(), package: package.into() };
        for package in ["org.one", "org.two", "org.two"] {
            store.add_app_session(session(package)).await.unwrap();
        }
        store.save_session("u", Some("{\"a\":1}")).await.unwrap();
        store.save_session("u", Some("{\"a\":2}")).await.unwrap();
        store.save_session("v", Some("{}")).await.unwrap();
        store.save_session("v", None).await.unwrap();
        assert!(store.remove_app("org.one").await.unwrap());
        assert!(!store.remove_app("org.one").await.unwrap());
        store.close().await;
        assert!(matches!(store.sessions().await, Err(StoreError::Closed)));

        let store = Store::open(&path).unwrap();
        let stored = store.accounts().await.unwrap();
        assert_eq!(
            stored,
            Stored { apps: vec![app("org.two")], devices: vec![device], sessions: vec![session("org.two")] }
        );
        assert_eq!(store.sessions().await.unwrap(), [("u".to_owned(), "{\"a\":2}".to_owned())]);
        store.close().await;
    }

    #[tokio::test]
    async fn only_its_owner_can_read_it_and_one_cloud_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloud.sqlite");
        let store = Store::open(&path).unwrap();
        store.add_app(app("org.one")).await.unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
        assert!(matches!(store.add_app(app("org.one")).await, Err(StoreError::Exists)));
        let second = tokio::task::spawn_blocking(move || Store::open(&path)).await.unwrap();
        assert!(matches!(second, Err(StoreError::InUse(_))), "{second:?}");
        store.close().await;
    }

    #[test]
    fn a_damaged_or_later_file_is_refused_in_words_that_help() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloud.sqlite");
        std::fs::write(&path, "surely no database, although it is long enough to be looked at as one".repeat(20))
            .unwrap();
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }) && error.to_string().contains("cloud.sqlite"), "{error}");

        let later = folder.path().join("later.sqlite");
        Connection::open(&later).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = Store::open(&later).unwrap_err();
        assert!(error.to_string().contains("later version"), "{error}");
        assert!(matches!(Store::open(&folder.path().join("no/such")), Err(StoreError::File { .. })));
    }
}
