//! The standard metrics of a process, read from `/proc`; none on systems without it (macOS).

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// `USER_HZ`: Linux reports times to user space in hundredths of a second, on all architectures of Rust's targets.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(super) struct ProcessCollector;

#[derive(Debug, Default, PartialEq)]
struct Usage {
    cpu_seconds: Option<f64>,
    start_time: Option<f64>,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    max_fds: Option<u64>,
}

impl Usage {
    /// Reads the files `stat`, `status` and `limits` of the process, and `stat` of the machine.
    fn of(stat: &str, status: &str, limits: &str, machine: &str) -> Self {
        // The second member is the command's name in parentheses, which may contain spaces and parentheses.
        let members: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let ticks = |member: usize| members.get(member - 3)?.parse::<f64>().ok();
        let kib = |name: &str| number(status, name).map(|kib| kib * 1024);
        let boot = machine.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        Usage {
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            start_time: boot.zip(ticks(22)).map(|(boot, since)| boot + since / TICKS_PER_SECOND),
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: kib("VmSize:"),
            max_fds: number(limits, "Max open files"),
        }
    }
}

/// The first number of the line that begins with `name`.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let own = |file: &str| read(format!("/proc/self/{file}"));
        let usage = Usage::of(&own("stat"), &own("status"), &own("limits"), &read("/proc/stat".into()));
        let open_fds = fs::read_dir("/proc/self/fd").map(|fds| fds.count() as u64).ok();
        if let Some(seconds) = usage.cpu_seconds {
            encoder
                .encode_descriptor(
                    "process_cpu_seconds",
                    "Total user and system CPU time spent in seconds",
                    None,
                    MetricType::Counter,
                )?
                .encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
        }
        if let Some(seconds) = usage.start_time {
            encoder
                .encode_descriptor(
                    "process_start_time_seconds",
                    "Start time of the process since unix epoch in seconds",
                    None,
                    MetricType::Gauge,
                )?
                .encode_gauge(&seconds)?;
        }
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory size in bytes", usage.resident_bytes),
            ("process_virtual_memory_bytes", "Virtual memory size in bytes", usage.virtual_bytes),
            ("process_open_fds", "Number of open file descriptors", open_fds),
            ("process_max_fds", "Maximum number of open file descriptors", usage.max_fds),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_parsed_from_the_files_of_proc() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 1234 1000 200";
        let status = "Name:\ta\nVmSize:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 4096                 files     \n";
        let usage = Usage::of(stat, status, limits, "cpu 1\nbtime 1700000000\n");
        let expected = Usage {
            cpu_seconds: Some(3.0),
            start_time: Some(1_700_000_012.34),
            resident_bytes: Some(1024 * 1024),
            virtual_bytes: Some(2048 * 1024),
            max_fds: Some(1024),
        };
        assert_eq!(usage, expected);
        assert_eq!(Usage::of("", "", "", ""), Usage::default());
    }
}
