//! Signals that must not end the process while a refresh token is not saved.

use std::io;

/// While this exists, Ctrl-C and the requests to end do not end the process.
pub(super) struct HeldSignals {
    #[cfg(unix)]
    _signals: [tokio::signal::unix::Signal; 3],
    #[cfg(windows)]
    _signals:
        (tokio::signal::windows::CtrlC, tokio::signal::windows::CtrlBreak, tokio::signal::windows::CtrlClose),
}

impl HeldSignals {
    #[cfg(unix)]
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(HeldSignals { _signals: [interrupt, terminate, signal(SignalKind::hangup())?] })
    }

    #[cfg(windows)]
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close};
        Ok(HeldSignals { _signals: (ctrl_c()?, ctrl_break()?, ctrl_close()?) })
    }
}
