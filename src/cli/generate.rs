// SPDX-License-Identifier: GPL-2.0-only
//! What follows from the definition of the command line: completions and man pages.

use clap::CommandFactory;

use super::args::Cli;
use super::commands::Message;

/// The program's name in completions and man pages.
const NAME: &str = "gmem-conform";

/// The script that a shell reads to complete the command line.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<String, Message> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    Ok(String::from_utf8(script)?)
}

/// The man page of the program or of one of its commands, as roff.
pub(super) fn man(command: Option<&str>) -> Result<String, Message> {
    let mut program = Cli::command();
    // Options that every command has are known to it only then.
    program.build();
    let page = match command {
        None => program,
        Some(name) => {
            let names = || program.get_subcommands().map(clap::Command::get_name);
            let found = program.find_subcommand(name).cloned();
            let page = found.ok_or_else(|| {
                let near = crate::text::nearest(names(), name).join("\n  ");
                format!("there is no command `{name}`; the nearest are\n  {near}")
            })?;
            // The page is called as the command is: NAME-COMMAND(1).
            let title: &'static str = Box::leak(format!("{NAME}-{name}").into_boxed_str());
            page.name(title)
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    Ok(String::from_utf8(text)?)
}
