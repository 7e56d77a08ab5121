//! The tables of docs/freshness.md.

use std::fmt::Write;

use crate::{
    cluster::Cluster,
    command::{Result, output},
    phases::Phase,
    readings::{Figures, Readings},
    resources::Resources,
};

pub fn render(
    cluster: &Cluster,
    node_of: Option<&str>,
    readings: &Readings,
    resources: &[Resources],
) -> Result<String> {
    let mut text = String::new();
    let (began, ended) = readings.whole();
    let cluster_is = node_of
        .map_or_else(|| "the cluster of `KUBECONFIG`".to_owned(), |command| format!("a node of `{command}`"));
    let commit = output("git", &["rev-parse", "--short", "HEAD"], "").unwrap_or_default();
    let measured = format!(
        "Measured on {}, commit {}, Kubernetes {} on {cluster_is}, {}, for {} minutes, with \
         a load of at most {:.0}. `helm install --wait` took {} s.",
        output("date", &["-u", "+%Y-%m-%d"], "")?.trim(),
        commit.trim(),
        cluster.version()?,
        machine(),
        (ended - began) / 60_000,
        readings.windows.iter().map(|window| window.load).fold(0.0, f64::max),
        readings.install.as_secs(),
    );
    writeln!(text, "{}\n", wrapped(&measured))?;
    by_kind(&mut text, readings)?;
    by_phase(&mut text, readings)?;
    if !readings.windows.iter().any(|window| window.phase == Phase::Keyless) {
        text.push_str("\nTokens without a client secret were left out: they need a node, and Keycloak.\n");
    }
    if !resources.is_empty() {
        by_fleet(&mut text, resources)?;
    }
    Ok(text)
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").ok();
    let kibibytes = memory.as_deref().and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    format!("{cores} cores and {} GiB of memory", kibibytes.unwrap_or_default() >> 20)
}

fn by_kind(text: &mut String, readings: &Readings) -> Result<()> {
    let (began, ended) = readings.whole();
    text.push_str(
        "| lifetime | propagation | `PropagationSafe` | tokens read | issue to file: median, longest | least life left \
         when read while no refresh is late (promised) | when issuer, leader or API server are away | read after the end |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let (mut applications, mut refused_elsewhere) = (Figures::default(), 0);
    for of_kind in &readings.kinds {
        let kind = of_kind.kind;
        let figures = of_kind.between(began, ended);
        let promised =
            if kind.least_life() > 0 { format!("{} s", kind.least_life()) } else { "none".to_owned() };
        let least_left = |delayed| of_kind.least_left(&readings.windows, delayed);
        let age = |index: usize| figures.ages.get(index).map_or_else(|| "-".to_owned(), |&age| seconds(age));
        writeln!(
            text,
            "| {} s | `{:?}` | {} | {} | {}, {} | {} ({promised}) | {} | {} |",
            kind.lifetime,
            kind.propagation,
            of_kind.condition,
            figures.ages.len(),
            age(figures.ages.len() / 2),
            age(figures.ages.len().saturating_sub(1)),
            left(least_left(false)),
            left(least_left(true)),
            seconds(figures.expired),
        )?;
        if kind.least_life() > 0 {
            applications.requests += figures.requests;
            applications.retried += figures.retried;
            applications.refused += figures.refused;
            applications.failed += figures.failed;
        } else {
            refused_elsewhere += figures.refused;
        }
    }
    let applications = format!(
        "The applications sent {} requests with tokens for which something is promised: {} were refused, {} were accepted \
         at the second try, and {} had no response. With the others {refused_elsewhere} were refused, as `PropagationSafe` said.",
        applications.requests, applications.refused, applications.retried, applications.failed,
    );
    writeln!(text, "\n{}", wrapped(&applications))?;
    Ok(())
}

fn by_phase(text: &mut String, readings: &Readings) -> Result<()> {
    let caption = "The least life left when read, by disturbance; where an expired token was read, for how long (of all \
                   its readers together):";
    write!(text, "\n{}\n\n| |", wrapped(caption))?;
    for readings in &readings.kinds {
        write!(text, " {} |", readings.kind)?;
    }
    write!(text, "\n|---|{}", "---|".repeat(readings.kinds.len()))?;
    for window in &readings.windows {
        write!(text, "\n| {} |", title(window.phase))?;
        for readings in &readings.kinds {
            let figures = readings.between(window.began, window.ended);
            let expired = if figures.expired > 0 {
                format!(", expired {}", seconds(figures.expired))
            } else {
                String::new()
            };
            write!(text, " {}{expired} |", left(figures.least_left))?;
        }
    }
    text.push_str("\n\n| disturbance | what was done | watched for |\n|---|---|---|\n");
    for window in &readings.windows {
        writeln!(
            text,
            "| {} | {} | {} s |",
            title(window.phase),
            window.note,
            (window.ended - window.began) / 1000
        )?;
    }
    Ok(())
}

fn by_fleet(text: &mut String, resources: &[Resources]) -> Result<()> {
    writeln!(
        text,
        "\nMemory (working set) and CPU of the operator's pods, with TokenSources of 1800 s beside those above:\n\n\
         | TokenSources | memory of the leader, highest | of the replica that waits | CPU between refreshes | CPU for one token | \
         CPU with refreshes | all had their first token after |\n|---|---|---|---|---|---|---|"
    )?;
    for row in resources {
        writeln!(
            text,
            "| {} | {} | {} | {:.1}m | {:.1} ms | {:.1}m | {} s |",
            row.sources,
            mebibytes(row.leader),
            mebibytes(row.follower),
            row.idle * 1000.0,
            row.per_token * 1000.0,
            row.cores() * 1000.0,
            row.created_in.as_secs(),
        )?;
    }
    Ok(())
}

fn title(phase: Phase) -> &'static str {
    match phase {
        Phase::Steady => "Steady running",
        Phase::Restart => "Restart",
        Phase::LeaderKilled => "Leader killed",
        Phase::NodeGone => "Leader's node gone",
        Phase::Upgrade => "Upgrade and rollback",
        Phase::ArbitraryUser => "Arbitrary user",
        Phase::IssuerOutage => "Outage of the issuer",
        Phase::ControlPlane => "API server and etcd killed",
        Phase::Kubelet => "Kubelet killed",
        Phase::Keyless => "Without a secret",
    }
}

fn left(least: Option<i64>) -> String {
    match least {
        None => "not replaced".to_owned(),
        Some(left) if left <= 0 => "none".to_owned(),
        Some(left) => seconds(left),
    }
}

/// With at most 120 columns.
fn wrapped(text: &str) -> String {
    let (mut lines, mut columns) = (String::new(), 0);
    for word in text.split(' ') {
        let length = word.chars().count() + 1;
        lines.push_str(if columns == 0 {
            ""
        } else if columns + length > 120 {
            "\n"
        } else {
            " "
        });
        columns = if columns + length > 120 { length } else { columns + length };
        lines.push_str(word);
    }
    lines
}

/// Milliseconds as seconds, to a tenth.
fn seconds(milliseconds: i64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
