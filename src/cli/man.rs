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
    let of_command = |command: &clap::Command| {
        let name = format!("{}-{}", parser.get_name(), command.get_name());
        command.clone().display_name(name)
    };
    let commands: Vec<_> = parser.get_subcommands().map(of_command).collect();
    for command in std::iter::once(parser).chain(commands) {
        let page = Man::new(command);
        let path = options.directory.join(page.get_filename());
        Product::create("the manual page", &path)?.finish(|out| page.render(out))?;
    }
    Ok(Exit::Done)
}
