//! The table of `get`. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use jiff::Timestamp;

use super::row::{Row, State, distance, first_words, span};
use crate::commands::output::{Colour, Line};
use crate::time::seconds_between;

/// What the table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) namespace: bool,
    pub(super) wide: bool,
}

/// The table, whose columns keep their widths for further rows.
pub(super) struct Table {
    columns: Columns,
    widths: Vec<usize>,
}

impl Table {
    pub(super) fn new(columns: Columns) -> Self {
        Table { columns, widths: vec![] }
    }

    /// Whether it has been shown.
    pub(super) fn has_headings(&self) -> bool {
        !self.widths.is_empty()
    }

    /// The lines of these rows, after a line of headings.
    pub(super) fn with_headings(&mut self, now: Timestamp, rows: &[Row]) -> Vec<Line> {
        let cells: Vec<_> = rows.iter().map(|row| self.cells(now, row)).collect();
        let headings = self.headings();
        for cells in std::iter::once(&headings).chain(&cells) {
            self.widths.resize(cells.len(), 0);
            for (width, cell) in self.widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut lines = vec![self.line(&headings, None)];
        lines.extend(rows.iter().zip(&cells).map(|(row, cells)| self.line(cells, Some(row.state))));
        lines
    }

    /// The line of one more row.
    pub(super) fn line_of(&self, now: Timestamp, row: &Row) -> Line {
        self.line(&self.cells(now, row), Some(row.state))
    }

    fn headings(&self) -> Vec<String> {
        let mut all = vec!["NAME", "STATE", "REASON", "EXPIRES", "NEXT"];
        if self.columns.namespace {
            all.insert(0, "NAMESPACE");
        }
        if self.columns.wide {
            all.extend(["SECRET", "PROVIDER", "TOKEN", "AGE"]);
        }
        all.push("REMEDY");
        all.into_iter().map(str::to_owned).collect()
    }

    fn cells(&self, now: Timestamp, row: &Row) -> Vec<String> {
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let time = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| distance(now, at));
        let mut all = vec![
            row.name.clone(),
            row.state.name().to_owned(),
            or_dash(row.reason.clone()),
            time(row.expires_at),
            time(row.next_at),
        ];
        if self.columns.namespace {
            all.insert(0, row.namespace.clone());
        }
        if self.columns.wide {
            let age = row.created_at.map_or_else(|| "-".to_owned(), |at| span(seconds_between(at, now)));
            all.extend([row.secret.clone(), row.provider.clone(), row.token.clone()].map(or_dash));
            all.push(age);
        }
        all.push(match row.remedy {
            None => String::new(),
            Some(remedy) if self.columns.wide => remedy.to_owned(),
            Some(remedy) => first_words(remedy),
        });
        all
    }

    fn line(&self, cells: &[String], state: Option<State>) -> Line {
        let mut line = Line::default();
        let state_column = usize::from(self.columns.namespace) + 1;
        let last = cells.iter().rposition(|cell| !cell.is_empty()).unwrap_or_default();
        for (at, cell) in cells.iter().enumerate().take(last + 1) {
            let colour = state.filter(|_| at == state_column).and_then(colour);
            line.push(colour, cell);
            if at < last {
                let width = self.widths.get(at).copied().unwrap_or_default();
                line.push(None, &" ".repeat(width.saturating_sub(cell.chars().count()) + 3));
            }
        }
        line
    }
}

fn colour(state: State) -> Option<Colour> {
    match state {
        State::Expired | State::NotReady => Some(Colour::Red),
        State::Failing | State::Expiring | State::Unseen | State::Unreadable | State::Attention => {
            Some(Colour::Yellow)
        }
        State::Requesting | State::Suspended | State::Deleting => None,
        State::Valid => Some(Colour::Green),
    }
}

#[cfg(test)]
mod tests {
    use tokensource_api::Reason;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn row(name: &str, state: State) -> Row {
        Row {
            namespace: "payments".into(),
            name: name.into(),
            state,
            reason: "ClientRejected".into(),
            expires_at: Some(at(200)),
            next_at: None,
            remedy: Some(
                "compare client id, client secret and clientAuthentication with what the issuer has; more",
            ),
            secret: "vgs-token".into(),
            provider: "vgs".into(),
            token: String::new(),
            created_at: Some(at(-7200)),
        }
    }

    #[test]
    fn table_has_columns_of_one_width_and_no_spaces_at_the_end() {
        let rows = [row("vault-api", State::Failing), Row { remedy: None, ..row("a", State::Valid) }];
        let text = |columns: Columns| {
            let lines = Table::new(columns).with_headings(at(0), &rows);
            lines.iter().map(|line| format!("{}\n", line.text())).collect::<String>()
        };
        assert_eq!(
            text(Columns { namespace: false, wide: false }),
            "NAME        STATE     REASON           EXPIRES   NEXT   REMEDY
vault-api   Failing   ClientRejected   3m20s     -      compare client id, client secret and clientAuthentication...
a           Valid     ClientRejected   3m20s     -
"
        );
        let wide = text(Columns { namespace: true, wide: true });
        assert!(wide.starts_with("NAMESPACE   NAME        STATE"), "{wide}");
        assert!(wide.contains("-      vgs-token   vgs        -       2h    compare client id"), "{wide}");
        assert!(wide.contains("what the issuer has; more\n"), "{wide}");
    }

    #[test]
    fn plugin_page_shows_the_table() {
        const PAGE: &str = include_str!("../../../docs/kubectl-plugin.md");
        let remedy = |reason: Reason| Some(reason.remedy()).filter(|remedy| *remedy != "nothing");
        let of = |namespace: &str, name: &str, state, reason: Reason, times: [Option<i64>; 2]| Row {
            namespace: namespace.into(),
            reason: reason.to_string(),
            expires_at: times[0].map(at),
            next_at: times[1].map(at),
            remedy: remedy(reason),
            ..row(name, state)
        };
        let rows = [
            of("billing", "ledger", State::Expired, Reason::ClientRejected, [Some(-300), Some(29)]),
            of("payments", "no-secret", State::NotReady, Reason::CredentialsNotFound, [None, None]),
            of("payments", "vault-api", State::Failing, Reason::EndpointUnavailable, [Some(200), Some(12)]),
            of("search", "crawler", State::Valid, Reason::TokenValid, [Some(2520), Some(2220)]),
        ];
        let lines = Table::new(Columns { namespace: true, wide: false }).with_headings(at(0), &rows);
        let table: String = lines.iter().map(|line| line.text() + "\n").collect();
        assert!(
            PAGE.contains(&format!("$ kubectl tokensource get -A\n{table}```")),
            "the page lacks:\n{table}"
        );
    }

    #[test]
    fn only_the_state_is_coloured() {
        let lines = Table::new(Columns { namespace: true, wide: false })
            .with_headings(at(0), &[row("a", State::Expired)]);
        let coloured = lines.iter().map(|line| line.coloured()).collect::<Vec<_>>();
        assert!(!coloured[0].contains('\u{1b}'), "{coloured:?}");
        assert_eq!(coloured[1].matches('\u{1b}').count(), 2, "{coloured:?}");
        assert!(coloured[1].contains("\u{1b}[31mExpired\u{1b}[0m"), "{coloured:?}");
    }
}
