//! `plainfold man`: the manual pages, made of the same texts as `--help`.

use std::path::PathBuf;

use clap::Args;
use clap_mangen::Man;

use super::exit::Exit;
use super::output::{Product, create_folder};

/// What `plainfold man` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The directory; it is created if it does not exist
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// Writes all pages of this parser.
pub fn run(options: &Options, mut parser: clap::Command) -> anyhow::Result<Exit> {
    parser.build();
    create_folder("the manual", &options.directory)?;
    let name = parser.get_name().to_owned();
    for command in with_names(parser, name) {
        let page = Man::new(command);
        let path = options.directory.join(page.get_filename());
        Product::create("the manual page", &path)?.finish(|out| page.render(out))?;
    }
    Ok(Exit::Done)
}

/// A command and those below it, each under the name of its page.
fn with_names(command: clap::Command, name: String) -> Vec<clap::Command> {
    let below = command.get_subcommands().flat_map(|one| {
        let name = format!("{name}-{}", one.get_name());
        with_names(one.clone(), name)
    });
    let below: Vec<_> = below.collect();
    std::iter::once(command.display_name(name)).chain(below).collect()
}
