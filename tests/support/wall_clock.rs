//! The wall clock of an operator, which a test sets by libfaketime. Its monotonic clock is the machine's.

use std::fs;
use std::path::PathBuf;

/// A wall clock. Processes that were started with its variables follow it.
pub struct WallClock {
    folder: tempfile::TempDir,
}

impl WallClock {
    /// It is so many seconds ahead of the machine's.
    pub fn new(ahead: i64) -> Self {
        let clock = WallClock { folder: tempfile::tempdir().unwrap() };
        clock.set(ahead);
        clock
    }

    /// Sets it to so many seconds ahead of the machine's.
    pub fn set(&self, ahead: i64) {
        // Renamed: a process may read the file at any moment.
        let new = self.folder.path().join("new");
        fs::write(&new, format!("{ahead:+}\n")).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    /// The variables for a process that follows it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", library().to_str().unwrap().to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().to_str().unwrap().to_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ahead")
    }
}

/// Removes what libfaketime leaves behind of a process that was killed.
pub fn clean_up_after(pid: u32) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        let _ = fs::remove_file(PathBuf::from("/dev/shm").join(name)); // it may have ended by itself
    }
}

/// The library where Debian and Fedora install it.
fn library() -> PathBuf {
    let folders = ["/usr/lib", "/usr/lib64"].into_iter().filter_map(|folder| fs::read_dir(folder).ok());
    let inner = folders.flatten().filter_map(|entry| Some(entry.ok()?.path().join("faketime")));
    let all = inner.chain(["/usr/lib/faketime".into(), "/usr/lib64/faketime".into()]);
    let found = all.map(|folder| folder.join("libfaketime.so.1")).find(|library| library.exists());
    found.expect("libfaketime; `make doctor` reports what this machine lacks")
}
