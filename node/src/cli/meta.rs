//! Commands about the command line itself: completion scripts and manual pages.

use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;

use super::{CliError, Context, Exit, Output};

/// `tributary completions`
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// `tributary man`
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write a page for every command into this folder, instead of the main page to standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs, mut command: Command, _: &Context) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "tributary", &mut script);
    Output::bytes(&script)
}

pub(super) fn man(args: &ManArgs, command: Command, context: &Context) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::new(Exit::Failed, "the manual could not be written").cause(error);
    match &args.out {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page).map_err(failed)?;
            Output::bytes(&page)
        }
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(failed)?;
            clap_mangen::generate_to(command, folder).map_err(failed)?;
            context.output.note(&format!("wrote the manual pages to {}", folder.display()));
            Ok(())
        }
    }
}
