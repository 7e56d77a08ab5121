//! `get`: TokenSources by urgency, with the first words of the remedy. Nothing is written.

mod row;
mod table;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::kubectl::{ClusterArgs, SelectionArgs};
use super::output;
use crate::cluster::{Change, UserCluster, UserClusterError, WatchEnd};
use row::Row;
use table::{Columns, Table};

/// The text below the flags in the help of `get`.
pub const HELP: &str = "States, the most urgent first:
  Expired     the token has expired
  NotReady    there is no token for the present spec
  Failing     the token is valid, and its refresh fails
  Expiring    the token is valid, and its refresh is overdue: does the operator run?
  Unseen      no operator has reconciled the TokenSource, or not with its present spec
  Unreadable  another version of the operator wrote a status that this command cannot read
  Requesting  a token is being asked for
  Attention   the token is valid, and some readers may get a new one too late
  Suspended, Deleting, Valid

NEXT is the refresh, or the next attempt after a failure. Negative times are past.

Exit codes:
  0  the TokenSources were shown, or there are none
  1  one could not be read: wrong flags or cluster, not found, or no right";

/// The flags of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Which TokenSources; default: all of the namespace.
    #[command(flatten)]
    pub selection: SelectionArgs,

    /// After the list, show each change.
    #[arg(short = 'w', long, conflicts_with = "names")]
    pub watch: bool,

    /// The format.
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT")]
    pub output: Option<GetFormat>,

    /// The flags of kubectl.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// A format of `get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GetFormat {
    /// The table with more columns and the whole remedy.
    Wide,
    /// The objects as JSON.
    Json,
    /// The objects as YAML.
    Yaml,
    /// The names, for other commands.
    Name,
}

/// Shows TokenSources. Returns the exit code, see [`HELP`].
pub async fn run(arguments: GetArgs) -> u8 {
    token_endpoint::transport::install_crypto_provider();
    match get(&arguments).await {
        Ok(code) => code,
        Err(error) => output::report_error(&error).into(),
    }
}

async fn get(arguments: &GetArgs) -> Result<u8, UserClusterError> {
    let cluster = UserCluster::connect(&arguments.cluster.connection()).await?;
    let selection = &arguments.selection;
    let columns =
        Columns { namespace: selection.all_namespaces, wide: arguments.output == Some(GetFormat::Wide) };
    let mut table = Table::new(columns);
    if !selection.names.is_empty() {
        return Ok(named(arguments, &cluster, &mut table).await);
    }
    let (objects, mut version) = selection.listed(&cluster).await?;
    if objects.is_empty() && !matches!(arguments.output, Some(GetFormat::Json | GetFormat::Yaml)) {
        output::print_note(&selection.none_found(&cluster));
    }
    if !objects.is_empty() || matches!(arguments.output, Some(GetFormat::Json | GetFormat::Yaml)) {
        show(arguments, &mut table, objects, true);
    }
    if !arguments.watch {
        return Ok(0);
    }
    let scope = selection.scope(&cluster);
    loop {
        let watched = cluster
            .watch_source_objects(&scope, version, |change| {
                if let Change::Shown(object) = change {
                    show_one(arguments, &mut table, *object);
                }
            })
            .await?;
        version = match watched {
            WatchEnd::Over(version) => version,
            WatchEnd::Expired => {
                let (objects, version) = cluster.source_objects(&scope, |_| ()).await?;
                objects.into_iter().for_each(|object| show_one(arguments, &mut table, object));
                version
            }
        };
    }
}

/// Shows the TokenSources that are named. Those that cannot be read are reported one by one.
async fn named(arguments: &GetArgs, cluster: &UserCluster, table: &mut Table) -> u8 {
    let (objects, failed) = arguments.selection.named(cluster).await;
    let as_list = arguments.selection.names.len() > 1;
    if !objects.is_empty() {
        show(arguments, table, objects, as_list);
    }
    failed.into()
}

/// The TokenSources, the most urgent first.
pub(super) fn by_urgency(mut objects: Vec<DynamicObject>) -> Vec<DynamicObject> {
    let now = Timestamp::now();
    objects.sort_by_cached_key(|object| Row::of(now, object).urgency());
    objects
}

/// The table of `-A -o wide`.
pub(super) fn wide_table(objects: &[DynamicObject]) -> String {
    let now = Timestamp::now();
    let rows: Vec<_> = objects.iter().map(|object| Row::of(now, object)).collect();
    let lines = Table::new(Columns { namespace: true, wide: true }).with_headings(now, &rows);
    lines.iter().map(|line| line.text() + "\n").collect()
}

/// Shows the objects of a list.
fn show(arguments: &GetArgs, table: &mut Table, mut objects: Vec<DynamicObject>, as_list: bool) {
    let now = Timestamp::now();
    match arguments.output {
        Some(GetFormat::Json | GetFormat::Yaml) => {
            let mut items: Vec<Value> = objects.drain(..).map(shown_object).collect();
            let document = match (as_list, items.pop()) {
                (false, Some(only)) => only,
                (_, last) => {
                    items.extend(last);
                    json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})
                }
            };
            print_document(arguments, &document);
        }
        Some(GetFormat::Name) => objects.iter().for_each(print_name),
        None | Some(GetFormat::Wide) => {
            let mut rows: Vec<_> = objects.iter().map(|object| Row::of(now, object)).collect();
            rows.sort_by_cached_key(Row::urgency);
            output::print_lines(&table.with_headings(now, &rows));
        }
    }
}

/// Shows an object that has changed.
fn show_one(arguments: &GetArgs, table: &mut Table, object: DynamicObject) {
    let now = Timestamp::now();
    match arguments.output {
        Some(GetFormat::Json | GetFormat::Yaml) => print_document(arguments, &shown_object(object)),
        Some(GetFormat::Name) => print_name(&object),
        None | Some(GetFormat::Wide) => {
            let row = Row::of(now, &object);
            output::print_lines(&match table.has_headings() {
                true => vec![table.line_of(now, &row)],
                false => table.with_headings(now, &[row]),
            });
        }
    }
}

fn print_name(object: &DynamicObject) {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    output::print(&format!("tokensource.tokensource.dev/{name}\n"));
}

fn print_document(arguments: &GetArgs, document: &Value) {
    output::print(&match arguments.output {
        Some(GetFormat::Json) => {
            format!("{}\n", serde_json::to_string_pretty(document).unwrap_or_default())
        }
        _ if arguments.watch => format!("---\n{}", serde_saphyr::to_string(document).unwrap_or_default()),
        _ => serde_saphyr::to_string(document).unwrap_or_default(),
    });
}

/// The object without what kubectl leaves out, too.
fn shown_object(mut object: DynamicObject) -> Value {
    object.metadata.managed_fields = None;
    serde_json::to_value(object).unwrap_or_default()
}
