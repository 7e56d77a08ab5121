//! The file that takes a new refresh token: made before the old one is spent, so that a path that cannot be written costs
//! nothing, and never in place of another file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

/// An empty file that only its owner may read. It goes again if nothing is kept in it.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    file: File,
    used: bool,
}

impl Keeper {
    /// Makes the file.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Keeper { path: path.to_owned(), file, used: false })
    }

    /// Writes the token, without a newline, down to the disk.
    pub(super) fn keep(&mut self, token: &SecretString) -> io::Result<()> {
        self.used = true;
        self.file.write_all(token.expose_secret().as_bytes())?;
        self.file.sync_all()
    }

    /// Where.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if !self.used {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_private_never_overwrites_and_leaves_nothing_unused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        drop(Keeper::create(&path).unwrap());
        assert!(!path.exists());
        Keeper::create(&path).unwrap().keep(&"next".into()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "next");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Keeper::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "next");
    }
}
