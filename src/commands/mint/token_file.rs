//! The file for a new refresh token. It is created before the old token is sent, so that a path that cannot be written
//! does not cost the token, and it never replaces an existing file.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use crate::commands::private_file;

/// A file with mode 0600. It is removed on drop if no token was saved.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    file: File,
    used: bool,
}

impl TokenFile {
    /// Creates the file, which must not exist.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = private_file::options().create_new(true).open(path)?;
        Ok(TokenFile { path: path.to_owned(), file, used: false })
    }

    /// Writes the token, without a newline, and syncs the file to the disk.
    pub(super) fn save(&mut self, token: &SecretString) -> io::Result<()> {
        self.used = true;
        self.file.write_all(token.expose_secret().as_bytes())?;
        self.file.sync_all()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        if !self.used {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_file_is_private_never_overwrites_and_is_removed_unused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        drop(TokenFile::create(&path).unwrap());
        assert!(!path.exists());
        TokenFile::create(&path).unwrap().save(&"next".into()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "next");
        #[cfg(unix)]
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777,
            0o600
        );
        assert_eq!(TokenFile::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "next");
    }
}
