//! `plainfold pause`, `resume`, `catch-up` and `rescan`: orders to the process that works on a mirror.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::exit::{Exit, Usage};
use super::help::{COPY, OUTPUT};
use super::name;
use super::output::{Lines, Stream};
use super::verify::ReportFormat;
use crate::api::client::{Door, DoorError};
use crate::document::CollectionName;
use crate::runner::{Action, Effect, Ordered};

/// What an order takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory, or its name in the config of `plainfold run`
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// The name of a collection
    ///
    /// Without it, the order is for all collections.
    #[arg(long, value_name = "NAME", help_heading = COPY)]
    collection: Option<String>,

    /// How the effect is printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "text", help_heading = OUTPUT)]
    format: ReportFormat,
}

/// Gives an order.
pub async fn run(action: Action, options: Options) -> anyhow::Result<Exit> {
    let Options { directory, collection, format } = options;
    let wanted = collection.as_deref().map(CollectionName::from);
    let ordered = match Door::find(&directory) {
        Ok(door) => door.order(action, wanted.as_ref()).await,
        Err(error) => Err(DoorError::from(error)),
    };
    let ordered = match ordered {
        // A mirror that has failed before its first session has no directory yet.
        Err(_) if action == Action::CatchUp && name::start(&directory).await => {
            let text = match format {
                ReportFormat::Json => Lines::pretty(&json!({ "starts": true }))?,
                ReportFormat::Text => Lines::of("the mirror starts now"),
            };
            Stream::Stdout.report("the effect of the order", &text)?;
            return Ok(Exit::Done);
        }
        ordered => ordered?,
    };
    let ordered = ordered.ok_or_else(|| {
        Usage(format!("the mirror has no collection `{}`", collection.unwrap_or_default()))
    })?;
    let text = match format {
        ReportFormat::Json => Lines::pretty(&ordered)?,
        ReportFormat::Text => {
            let mut lines = Lines::default();
            for Ordered { collection, effect } in &ordered {
                lines.push(&format!("{collection}: {}", words(action, *effect)));
            }
            if ordered.is_empty() {
                lines.push("the mirror has no collections");
            }
            lines
        }
    };
    Stream::Stdout.report("the effect of the order", &text)?;
    let refused = |one: &Ordered| matches!(one.effect, Effect::Paused | Effect::Unrepeatable);
    Ok(if ordered.iter().any(refused) { Exit::DocumentsFailed } else { Exit::Done })
}

/// The effect of an order, for people.
fn words(action: Action, effect: Effect) -> &'static str {
    match (action, effect) {
        (Action::Pause, Effect::Done) => {
            "paused until `plainfold resume`, or until the process ends"
        }
        (Action::Pause, Effect::Already) => "is paused already",
        (Action::Resume, Effect::Done) => "resumed",
        (Action::Resume, Effect::Already) => "is not paused",
        (Action::CatchUp, Effect::Done) => "catches up now",
        (Action::CatchUp, Effect::Already) => "reads its source already",
        (Action::Rescan, Effect::Done) => "makes a full scan now",
        (_, Effect::Already) => "nothing to do",
        (_, Effect::Later) => "the next run makes a full scan",
        (_, Effect::Paused) => "is paused: `plainfold resume` resumes it",
        (_, Effect::Ended) => "nothing more is done for it in this process",
        (_, Effect::Unrepeatable) => {
            "comes from standard input, which cannot be paused or read again"
        }
    }
}
