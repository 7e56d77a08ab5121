//! Faults that are known to leave harm behind. The list is to become empty.

/// A part of the trial's name, a part of the violation, and the issue.
const KNOWN: [(&str, &str, &str); 1] = [(
    "patch secrets/source-refresh-token #1 of changed credentials: 409",
    "the newest refresh token is not stored",
    "issue 12, fault 10: the save loses against the refresh token of an earlier original",
)];

/// The issue that describes this failure.
pub fn issue_of(name: &str, violation: &str) -> Option<&'static str> {
    let found = KNOWN
        .iter()
        .find(|(of_name, of_violation, _)| name.contains(of_name) && violation.contains(of_violation));
    found.map(|(_, _, issue)| *issue)
}
